"""The models an arm starts from, as its recipe wants them trained."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from psgpo.config import ArmSettings
from psgpo.models import TokenValueModel, checkpoint_activations, load_policy
from psgpo.runs.directory import RunDirectory
from psgpo.runs.stages import policy_folder
from psgpo.seeds import derive_seed


def arm_networks(
    run: RunDirectory, arm: ArmSettings
) -> tuple[PreTrainedModel, PreTrainedModel, TokenValueModel, PreTrainedTokenizerBase]:
    """Policy, its frozen reference, critic and tokenizer: the SFT policy, and the PRM where the arm has a ValueInit."""
    recipe = run.recipe
    start = policy_folder(run.path, "sft")
    policy, tokenizer = load_policy(start)
    reference, _ = load_policy(start)
    if arm.value_init is None:
        critic = TokenValueModel.from_policy(start, seed=derive_seed(recipe.seed, "critic"))
    else:
        critic = TokenValueModel.from_pretrained(run.path / "prm" / arm.value_init / "model")
    if recipe.model.gradient_checkpointing:
        checkpoint_activations(policy)
        checkpoint_activations(critic.classifier)
    return policy, reference, critic, tokenizer
