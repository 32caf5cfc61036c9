"""The models an arm starts from, as its recipe wants them trained."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from psgpo.config import ArmSettings
from psgpo.errors import UserError
from psgpo.labeling.identity import tokenizer_fingerprint
from psgpo.models import (
    TokenValueModel,
    check_value_start,
    initial_model,
    load_policy,
    load_tokenizer,
    prepare_training,
)
from psgpo.runs.directory import RunDirectory
from psgpo.runs.hub import model_folder
from psgpo.runs.stages import policy_folder
from psgpo.seeds import derive_seed


def arm_networks(
    run: RunDirectory, arm: ArmSettings
) -> tuple[PreTrainedModel, PreTrainedModel | None, TokenValueModel, PreTrainedTokenizerBase]:
    """Policy, its frozen reference, critic and tokenizer: the SFT policy, and the PRM where the arm has a ValueInit.

    No reference where the policy has adapters: with them off it is its own.

    Raises:
        UserError: the recipe's critic is none for this policy.
    """
    recipe = run.recipe
    start = policy_folder(run.path, "sft")
    policy, tokenizer = load_policy(start)
    reference = None if recipe.model.lora else load_policy(start)[0]
    if arm.value_init is not None:
        critic = TokenValueModel.from_pretrained(run.path / "prm" / arm.value_init / "model")
    else:
        own = recipe.critic.path and model_folder(recipe.critic.path, "critic.path")
        if own is not None:
            check_critic(own, start)
        critic = initial_model(own or start, derive_seed(recipe.seed, "critic"))
    prepare_training(policy, recipe.model, seed=derive_seed(recipe.seed, "adapters", "policy"))
    prepare_training(critic, recipe.model, seed=derive_seed(recipe.seed, "adapters", "critic"))
    return policy, reference, critic, tokenizer


def check_critic(critic: Path, policy: Path, *, context: int = 0) -> str:
    """Look at `critic.path` without loading its weights; says what it is.

    Args:
        policy: folder of the policy whose tokens it is to value.
        context: tokens that a response may have.

    Raises:
        UserError: it is no critic at all, or none for this policy.
    """
    said = check_value_start(critic, context=context)
    if len({tokenizer_fingerprint(load_tokenizer(folder)) for folder in (critic, policy)}) > 1:
        raise UserError(
            f"critic.path {critic}: its tokenizer is not that of the policy {policy}, so it would read other tokens; "
            "give a model of the same family, or leave critic.path out"
        )
    one, other = (AutoConfig.from_pretrained(folder, local_files_only=True) for folder in (critic, policy))
    if one.is_encoder_decoder and not other.is_encoder_decoder:
        raise UserError(
            f"critic.path {critic}: an encoder–decoder, which cannot tell where the prompts of the decoder {policy} "
            "end; give a decoder"
        )
    if one.vocab_size < other.vocab_size:
        raise UserError(
            f"critic.path {critic}: knows {one.vocab_size} token ids, the policy {policy} may write "
            f"{other.vocab_size}; give a model with as many"
        )
    return said
