"""Policies and value models. Importing this package registers `psgpo-shift` with the Auto classes."""

from psgpo.models.batch import right_pad, token_logprobs
from psgpo.models.policy import check_policy_folder, create_policy, load_policy, load_tokenizer
from psgpo.models.shift import ShiftConfig, ShiftForCausalLM, ShiftForTokenClassification, register
from psgpo.models.tokenizer import train_tokenizer
from psgpo.models.value import TokenValueModel

register()

__all__ = [
    "ShiftConfig",
    "ShiftForCausalLM",
    "ShiftForTokenClassification",
    "TokenValueModel",
    "check_policy_folder",
    "create_policy",
    "load_policy",
    "load_tokenizer",
    "right_pad",
    "token_logprobs",
    "train_tokenizer",
]
