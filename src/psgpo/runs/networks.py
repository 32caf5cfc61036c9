"""The models of an arm: what it starts from and what scores its lines, checked against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from psgpo.chats import recipe_template
from psgpo.config import ArmSettings, Recipe
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
from psgpo.prm.record import ScorerRecord
from psgpo.problems import load_problems_jsonl
from psgpo.prompts import build_prompt_ids
from psgpo.records import Problem
from psgpo.runs.directory import RunDirectory
from psgpo.runs.hub import model_folder
from psgpo.runs.stages import policy_folder
from psgpo.seeds import derive_seed


def arm_networks(
    run: RunDirectory, name: str
) -> tuple[PreTrainedModel, PreTrainedModel | None, TokenValueModel | None, PreTrainedTokenizerBase]:
    """Policy, its frozen reference, critic and tokenizer: the SFT policy, and the PRM where the arm has a ValueInit.

    No reference where the policy has adapters: with them off it is its own; nor where `kl_beta` is 0. No critic where
    `advantage` needs none.

    Raises:
        UserError: the recipe's critic is none for this policy, or one of them or the PRM that pays the arm reads too
            little.
    """
    recipe = run.recipe
    arm = recipe.arms[name]
    start = policy_folder(run.path, "sft")
    valued = recipe.rl_of(name).advantage == "gae"
    check_split_prompts(run, start, "train", critic=_critic_folder(run, name) if valued else None)
    policy, tokenizer = load_policy(start)
    reference = None if recipe.model.lora or not recipe.rl_of(name).kl_beta else load_policy(start)[0]
    _check_line_reader(run, arm)
    critic = _first_critic(run, name, start) if valued else None
    prepare_training(policy, recipe.model, seed=derive_seed(recipe.seed, "adapters", "policy"))
    if critic is not None:
        prepare_training(critic, recipe.model, seed=derive_seed(recipe.seed, "adapters", "critic"))
    return policy, reference, critic, tokenizer


def _first_critic(run: RunDirectory, name: str, start: Path) -> TokenValueModel:
    """The PRM of the arm's ValueInit, or the recipe's critic, or the policy in `start` with a fresh head."""
    own = _critic_folder(run, name)
    if run.recipe.arms[name].value_init is not None:
        assert own is not None
        check_critic(own, start, key=f"arms.{name}.value_init")
        return TokenValueModel.from_pretrained(own)
    if own is not None:
        check_critic(own, start)
    return initial_model(own or start, derive_seed(run.recipe.seed, "critic"))


def _critic_folder(run: RunDirectory, name: str) -> Path | None:
    """What the critic of an arm starts from; None: the policy."""
    value_init = run.recipe.arms[name].value_init
    if value_init is not None:
        return run.path / "prm" / value_init / "model"
    own = run.recipe.critic.path
    return None if own is None else model_folder(own, "critic.path")


def check_critic(critic: Path, policy: Path, *, key: str = "critic.path", context: int = 0) -> str:
    """Look at a folder that a critic starts from, without loading its weights; says what it is.

    Args:
        policy: folder of the policy whose tokens it is to value.
        key: of the recipe, for messages.
        context: tokens that a response may have.

    Raises:
        UserError: it is no critic at all, or none for this policy.
    """
    said = check_value_start(critic, context=context)
    if len({tokenizer_fingerprint(load_tokenizer(folder)) for folder in (critic, policy)}) > 1:
        raise UserError(
            f"{key} {critic}: its tokenizer is not that of the policy {policy}, so it would read other tokens; "
            f"give a model of the same family, or leave {key} out"
        )
    one, other = (AutoConfig.from_pretrained(folder, local_files_only=True) for folder in (critic, policy))
    if one.is_encoder_decoder and not other.is_encoder_decoder:
        raise UserError(
            f"{key} {critic}: an encoder–decoder, which cannot tell where the prompts of the decoder {policy} "
            "end; give a decoder"
        )
    if one.vocab_size < other.vocab_size:
        raise UserError(
            f"{key} {critic}: knows {one.vocab_size} token ids, the policy {policy} may write "
            f"{other.vocab_size}; give a model with as many"
        )
    return said


def causal_template(recipe: Recipe, policy: PreTrainedTokenizerBase, own: PreTrainedTokenizerBase) -> str:
    """The prompts that a causal PRM reads: the policy's, or the chat of its own tokenizer where that is another.

    With the policy's tokens it scores the very ids of prompts and responses (`rl.rollout.reads_ids`), whatever chat
    template lies in its folder.

    Raises:
        UserError: see `chats.chat_layout`.
    """
    same = tokenizer_fingerprint(policy) == tokenizer_fingerprint(own)
    return recipe_template(recipe, policy if same else own)


def check_line_reader(prm: Path, key: str, template: str, problems: Sequence[Problem], max_new_tokens: int) -> None:
    """Refuse a causal PRM with too short a context for the responses that it is to score.

    Prompts are counted in its own tokens. The limit of responses is one in the policy's: where its tokenizer needs more
    of them, single responses can still be too long (`rl.rollout.UNREAD`).

    Args:
        key: of the recipe, for messages.
        problems: that are trained on; empty where they are not known yet.

    Raises:
        UserError: the longest prompt and response do not fit.
    """
    context = getattr(AutoConfig.from_pretrained(prm, local_files_only=True), "max_position_embeddings", None)
    if context is None:
        return
    tokenizer = load_tokenizer(prm)
    longest = max((len(build_prompt_ids(tokenizer, template, problem)) for problem in problems), default=0)
    if longest + max_new_tokens > context:
        raise UserError(
            f"{key} {prm}: its context holds {context} tokens, the longest prompt has {longest} and "
            f"sampling.max_new_tokens is {max_new_tokens}; lower that, or give a PRM with a longer context"
        )


def check_prompts(
    recipe: Recipe, folders: Mapping[str, Path], policy: Path, splits: Mapping[str, Sequence[Problem]]
) -> None:
    """Refuse a problem that would end the run where its response is drawn, perhaps hours in.

    Every problem counts, also one that the steps of this run do not get to.

    Args:
        folders: of models that read whole responses, by what messages call them.
        policy: folder with the tokenizer that prompts are counted in.
        splits: problems that responses are drawn for.

    Raises:
        UserError: a prompt and `sampling.max_new_tokens` are more than one of their contexts holds.
    """
    configs = {name: AutoConfig.from_pretrained(folder, local_files_only=True) for name, folder in folders.items()}
    known = {name: getattr(config, "max_position_embeddings", None) for name, config in configs.items()}
    contexts = {f"{name} {folders[name]}": context for name, context in known.items() if context is not None}
    if not contexts:
        return
    reader = min(contexts, key=lambda name: contexts[name])
    tokenizer, limit = load_tokenizer(policy), recipe.sampling.max_new_tokens
    template = recipe_template(recipe, tokenizer)
    for split, problems in splits.items():
        lengths = [len(build_prompt_ids(tokenizer, template, problem)) for problem in problems]
        longest = max(range(len(lengths)), key=lambda i: lengths[i], default=None)
        if longest is not None and lengths[longest] + limit > contexts[reader]:
            raise UserError(
                f"{split} problem {problems[longest].id}: its prompt of {lengths[longest]} tokens and "
                f"sampling.max_new_tokens {limit} are more than the {contexts[reader]} that the context of {reader} "
                "holds; lower max_new_tokens, leave the problem out, or use a model with a longer context"
            )


def check_run_prompts(run: RunDirectory) -> None:
    """`check_prompts` of all problems of a run that responses are drawn for, as soon as they and a policy are there.

    No part of a stage: what it refuses would come out of none.
    """
    if not run.stage_done("problems"):
        return
    path = run.recipe.model.path
    if run.stage_done("sft"):
        policy = policy_folder(run.path, "sft")
    elif path is not None:
        policy = model_folder(path, "model.path")
    else:
        return
    check_split_prompts(run, policy, *drawn_splits(run.recipe))


def drawn_splits(recipe: Recipe) -> list[str]:
    """The splits of the problems that responses are drawn for."""
    return ["train", *(["label"] if recipe.prm and recipe.labels.source == "search" else []), "test"]


def check_split_prompts(run: RunDirectory, policy: Path, *splits: str, critic: Path | None = None) -> None:
    """`check_prompts` of files `problems/<split>.jsonl` of a run."""
    folders = {"the policy": policy} | ({} if critic is None else {"the critic": critic})
    problems = {split: load_problems_jsonl(run.path / "problems" / f"{split}.jsonl") for split in splits}
    check_prompts(run.recipe, folders, policy, problems)


def _check_line_reader(run: RunDirectory, arm: ArmSettings) -> None:
    settings = run.recipe.prm.get(arm.prm or "")
    if settings is None or settings.kind != "causal" or settings.from_policy:
        return
    folder = run.path / "prm" / str(arm.prm) / "model"
    problems = load_problems_jsonl(run.path / "problems" / "train.jsonl")
    template = ScorerRecord.load(folder).prompt_template
    check_line_reader(folder, f"prm.{arm.prm}", template, problems, run.recipe.sampling.max_new_tokens)
