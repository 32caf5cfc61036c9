"""verl (Ray, FSDP, vLLM): export of a run's arm, the plug-in that pays line rewards there, import of checkpoints.

`plugin` alone imports verl, and only verl imports it; the rest needs nothing but psgpo. See docs/verl.md.
"""
