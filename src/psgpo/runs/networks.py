"""The models an arm starts from, as its recipe wants them trained."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from psgpo.config import ArmSettings
from psgpo.models import TokenValueModel, load_policy, prepare_training
from psgpo.runs.directory import RunDirectory
from psgpo.runs.stages import policy_folder
from psgpo.seeds import derive_seed


def arm_networks(
    run: RunDirectory, arm: ArmSettings
) -> tuple[PreTrainedModel, PreTrainedModel | None, TokenValueModel, PreTrainedTokenizerBase]:
    """Policy, its frozen reference, critic and tokenizer: the SFT policy, and the PRM where the arm has a ValueInit.

    No reference where the policy has adapters: with them off it is its own.
    """
    recipe = run.recipe
    start = policy_folder(run.path, "sft")
    policy, tokenizer = load_policy(start)
    reference = None if recipe.model.lora else load_policy(start)[0]
    if arm.value_init is None:
        critic = TokenValueModel.from_policy(start, seed=derive_seed(recipe.seed, "critic"))
    else:
        critic = TokenValueModel.from_pretrained(run.path / "prm" / arm.value_init / "model")
    prepare_training(policy, recipe.model, seed=derive_seed(recipe.seed, "adapters", "policy"))
    prepare_training(critic, recipe.model, seed=derive_seed(recipe.seed, "adapters", "critic"))
    return policy, reference, critic, tokenizer
