"""Problems, and the policies trained on them: fine-tuning and PPO."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedTokenizerBase

from psgpo.chats import end_with_turns, recipe_template
from psgpo.config import ArmSettings, BenchmarkSource, JsonlSource
from psgpo.evaluation.sets import save_sets
from psgpo.execution import Sandbox
from psgpo.jsonl import write_json
from psgpo.models import (
    create_policy,
    load_policy,
    prepare_training,
    train_tokenizer,
)
from psgpo.problems import load_problems_jsonl, save_problems_jsonl
from psgpo.problems.opchain import measure_strength, weakened
from psgpo.prompts import build_prompt_ids, fill
from psgpo.records import Problem
from psgpo.rl.ppo import PpoTrainer
from psgpo.rl.rollout import LineScorer, open_line_scorer
from psgpo.runs.directory import RunDirectory
from psgpo.runs.hub import model_folder
from psgpo.runs.networks import arm_networks
from psgpo.runs.opening import chosen_device, open_sandbox, training_team
from psgpo.runs.splits import load_splits, load_tasks, refuse_without_references
from psgpo.runs.stages import embedded, policy_folder
from psgpo.runs.work.shared import Progress, benchmark, opened_sampler
from psgpo.sampling.vllm import VllmSampler
from psgpo.seeds import derive_seed
from psgpo.sft import train_sft

TOKENIZER_EXAMPLES = 3_000
"""SFT examples the tokenizer is trained on."""
STRENGTH_PROBLEMS = 200
"""Training problems whose tests are tried on mutants."""


def make_problems(run: RunDirectory, progress: Progress) -> None:
    """problems/{train,label,validation,test}.jsonl, and how strong their tests are (embedded benchmark).

    Public benchmarks: problems/{sft,train,label,test}.jsonl, plus.jsonl for mutants, and tests.json: the test sets.
    """
    folder = run.path / "problems"
    source = run.recipe.problems
    if isinstance(source, JsonlSource):
        for split, problems in load_splits(source).items():
            save_problems_jsonl(folder / f"{split}.jsonl", problems)
        return
    if isinstance(source, BenchmarkSource):
        tasks = load_tasks(run.recipe)
        for split, problems in tasks.splits.items():
            save_problems_jsonl(folder / f"{split}.jsonl", problems)
        save_sets(folder, tasks.tests)
        return
    chain = benchmark(run.recipe)
    # Labelled problems are training problems too; their ids may coincide with those of RL.
    wanted = {
        "train": ("train", source.train, source.train_operations),
        "label": ("train", source.label, source.label_operations),
        "validation": ("validation", source.validation, source.test_operations),
        "test": ("test", source.test, source.test_operations),
    }
    for done, (name, (split, count, operations)) in enumerate(wanted.items()):
        progress(done, len(wanted) + 1)
        made = chain.problems(split, count, operations)
        if source.train_tests is not None and split == "train":
            made = [weakened(problem, source.train_tests) for problem in made]
        save_problems_jsonl(folder / f"{name}.jsonl", made)
    problems = load_problems_jsonl(folder / "train.jsonl") + load_problems_jsonl(folder / "label.jsonl")
    step = max(1, len(problems) // STRENGTH_PROBLEMS)
    write_json(folder / "strength.json", measure_strength(problems[::step], seed=run.recipe.seed))
    progress(len(wanted) + 1, len(wanted) + 1)


def train_policy(run: RunDirectory, progress: Progress) -> None:
    """sft/model: the policy RL starts from."""
    recipe = run.recipe
    if recipe.model.path is not None:
        model, tokenizer = load_policy(model_folder(recipe.model.path, "model.path"))
        pairs = _sft_pairs(run, recipe_template(recipe, tokenizer))
        if recipe.prompt_chat:
            end_with_turns(model, tokenizer)
    else:
        pairs = _sft_pairs(run, recipe.prompt_template)
        tokenizer = train_tokenizer(
            [prompt + text for prompt, text in pairs[:TOKENIZER_EXAMPLES]], recipe.model.vocab_size
        )
        model = create_policy(
            tokenizer,
            seed=derive_seed(recipe.seed, "policy"),
            hidden_size=recipe.model.hidden_size,
            intermediate_size=recipe.model.intermediate_size,
            num_hidden_layers=recipe.model.layers,
            num_attention_heads=recipe.model.heads,
            max_position_embeddings=recipe.model.max_positions,
        )
    prepare_training(model, recipe.model, seed=derive_seed(recipe.seed, "adapters", "sft"), adapt=recipe.sft.lora)
    team = training_team(recipe)
    if not pairs:
        if team.is_main:
            model.save_pretrained(run.path / "sft" / "model")
            tokenizer.save_pretrained(run.path / "sft" / "model")
        return
    train_sft(
        model,
        tokenizer,
        pairs,
        recipe.sft,
        out=run.path / "sft",
        seed=recipe.seed,
        device=chosen_device(recipe),
        dtype=recipe.model.dtype,
        team=team,
        progress=progress,
    )


def train_arm(run: RunDirectory, progress: Progress, arm: str) -> None:
    """rl/<arm>: one PPO run from the SFT policy."""
    with arm_trainer(run, arm) as (trainer, prompts):
        trainer.train(prompts, progress=progress)


@contextmanager
def arm_trainer(run: RunDirectory, arm: str) -> Iterator[tuple[PpoTrainer, list[tuple[Problem, tuple[int, ...]]]]]:
    """The trainer of an arm before its first step, and the (problem, prompt ids) it trains on."""
    recipe = run.recipe
    settings = recipe.arms[arm]
    policy, reference, critic, tokenizer = arm_networks(run, arm)
    problems = load_problems_jsonl(run.path / "problems" / "train.jsonl")
    with open_sandbox(run) as sandbox, _rollout_engine(run) as engine:
        trainer = PpoTrainer(
            policy=policy,
            reference=reference,
            critic=critic,
            tokenizer=tokenizer,
            sandbox=sandbox,
            arm=settings,
            rl=recipe.rl_of(arm),
            sampling=recipe.sampling,
            out=run.path / "rl" / arm,
            seed=recipe.seed,
            scorer=_line_scorer(run, settings, tokenizer, sandbox),
            engine=engine,
            device=chosen_device(recipe),
            dtype=recipe.model.dtype,
            team=training_team(recipe),
        )
        template = recipe_template(recipe, tokenizer)
        prompts = [(problem, build_prompt_ids(tokenizer, template, problem)) for problem in problems]
        yield trainer, prompts


@contextmanager
def _rollout_engine(run: RunDirectory) -> Iterator[VllmSampler | None]:
    """vLLM with the sizes of the policy that every arm starts from, where the recipe wants it."""
    if run.recipe.sampling.engine != "vllm":
        yield None
        return
    with opened_sampler(policy_folder(run.path, "sft"), run.recipe) as (sampler, _):
        assert isinstance(sampler, VllmSampler)
        yield sampler


def _sft_pairs(run: RunDirectory, template: str) -> list[tuple[str, str]]:
    recipe = run.recipe
    if embedded(recipe):
        examples = benchmark(recipe).sft_examples(recipe.sft.examples, recipe.sft.operations)
        pairs = [(example.prompt, example.solution) for example in examples]
    else:
        split = "sft" if isinstance(recipe.problems, BenchmarkSource) else "train"
        file = run.path / "problems" / f"{split}.jsonl"
        problems = load_problems_jsonl(file)
        refuse_without_references(problems, str(file), recipe.sft)
        pairs = [(p.prompt, p.reference_solution) for p in problems if p.reference_solution][: recipe.sft.examples]
    return [(fill(template, prompt), solution) for prompt, solution in pairs]


def _line_scorer(
    run: RunDirectory, arm: ArmSettings, tokenizer: PreTrainedTokenizerBase, sandbox: Sandbox
) -> LineScorer | None:
    prm = run.path / "prm" / str(arm.prm) / "model"
    return open_line_scorer(
        arm, prm, tokenizer, sandbox, device=chosen_device(run.recipe), dtype=run.recipe.model.dtype
    )
