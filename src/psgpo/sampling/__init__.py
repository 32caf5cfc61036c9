"""Samplers: prefixes of token ids in, completions with log-probabilities out."""

from psgpo.sampling.hf import HFSampler
from psgpo.sampling.open import open_sampler
from psgpo.sampling.sampler import Sampler, SamplerStats

__all__ = ["HFSampler", "Sampler", "SamplerStats", "open_sampler"]
