"""One machine, several processes: who does what, sums over all, and networks that all of them train.

`accelerate launch -m psgpo …` or `torchrun -m psgpo …` starts the processes; one process alone is a team of one, for
which everything here is the identity. See docs/training-at-scale.md.

`launch`: joining and ending, loads no torch before it has to. `team`: the processes. `replica`: a network.
"""
