"""Policies and value models. Importing this package makes the Auto classes know those of its own (`psgpo-…`)."""

from psgpo.models.adapters import adapters_off, learned_state, load_learned, require_peft, save_merged
from psgpo.models.batch import right_pad, token_logprobs, token_loss
from psgpo.models.policy import (
    check_policy_folder,
    create_policy,
    load_policy,
    load_tokenizer,
)
from psgpo.models.prepare import prepare_training, round_frozen
from psgpo.models.seq2seq_value import register as register_seq2seq_value
from psgpo.models.shift import ShiftConfig, ShiftForCausalLM, ShiftForTokenClassification, register
from psgpo.models.tokenizer import train_tokenizer
from psgpo.models.value import TokenValueModel, check_value_start, initial_model, limit_layers

register()
register_seq2seq_value()

__all__ = [
    "ShiftConfig",
    "ShiftForCausalLM",
    "ShiftForTokenClassification",
    "TokenValueModel",
    "adapters_off",
    "check_policy_folder",
    "check_value_start",
    "create_policy",
    "initial_model",
    "learned_state",
    "limit_layers",
    "load_learned",
    "load_policy",
    "load_tokenizer",
    "prepare_training",
    "require_peft",
    "right_pad",
    "round_frozen",
    "save_merged",
    "token_logprobs",
    "token_loss",
    "train_tokenizer",
]
