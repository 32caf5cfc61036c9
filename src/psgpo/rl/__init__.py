"""Reinforcement learning: `rewards`, `advantages` and `losses` are pure; `ppo` is the algorithm."""
