"""Labelling with a real policy, sampler, sandbox and oracle: a small model that has half learned four problems."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from psgpo.config import LabelSettings, SamplingSettings
from psgpo.execution import Sandbox
from psgpo.jsonl import read_jsonl
from psgpo.labeling import (
    Labelling,
    cost_summary,
    label_responses,
    measure_labels,
    sample_responses,
    write_labels,
)
from psgpo.lines import TokenText, code_lines, extract_code
from psgpo.models import create_policy, train_tokenizer
from psgpo.problems.opchain import OpChain
from psgpo.problems.opchain.oracle import ExactOracle
from psgpo.prompts import build_prompt_ids
from psgpo.records import LineLabels, Problem, Response
from psgpo.sampling import HFSampler

TEMPLATE = "# {prompt}\n"
SAMPLING = SamplingSettings(max_new_tokens=96)


@dataclass(frozen=True)
class World:
    problems: list[Problem]
    tokenizer: Any
    sampler: HFSampler
    sandbox: Sandbox
    responses: list[Response]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    chain = OpChain()
    problems = chain.problems("train", 4, (1, 2))
    solutions = [problem.reference_solution or "" for problem in problems]
    tokenizer = train_tokenizer([f"# {p.prompt}\n{s}" for p, s in zip(problems, solutions, strict=True)], 320)
    model = create_policy(tokenizer, hidden_size=48, intermediate_size=96, num_hidden_layers=1, num_attention_heads=2)
    _half_learn(model, tokenizer, problems, solutions)
    sampler = HFSampler(model, tokenizer)
    with Sandbox(timeout=2.0) as sandbox:
        responses = sample_responses(
            sampler,
            tokenizer,
            problems,
            sandbox,
            checkpoint="small",
            responses_per_problem=5,
            seed=0,
            prompt_template=TEMPLATE,
            settings=SAMPLING,
        )
        yield World(problems, tokenizer, sampler, sandbox, responses)


def _half_learn(model: Any, tokenizer: Any, problems: list[Problem], solutions: list[str]) -> None:
    """Solutions with some lines taken from other solutions, so that the policy errs in the middle of programs."""
    rng = random.Random(0)
    pool = [line for solution in solutions for line in solution.splitlines()[1:-1]]
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    model.train()
    for _ in range(120):
        rows = []
        for problem, solution in zip(problems, solutions, strict=True):
            lines = [line if rng.random() < 0.8 else rng.choice(pool) for line in solution.splitlines()]
            ids = [*build_prompt_ids(tokenizer, TEMPLATE, problem)]
            ids += tokenizer("\n".join(lines) + "\n", add_special_tokens=False)["input_ids"]
            rows.append([*ids, tokenizer.eos_token_id])
        width = max(map(len, rows))
        batch = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        logits = model(input_ids=batch, attention_mask=mask).logits[:, :-1]
        targets = batch[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
        optimizer.zero_grad()
        cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100).backward()
        optimizer.step()
    model.eval()


def run(world: World, journal: Path, **changes: Any) -> Labelling:
    return label_responses(
        world.responses,
        world.problems,
        samplers={"small": world.sampler},
        tokenizer=world.tokenizer,
        sandbox=world.sandbox,
        settings=LabelSettings(**({"k": 4, "draw": 2} | changes)),
        sampling=SAMPLING,
        seed=0,
        journal=journal,
    )


def test_a_real_policy_is_labelled_and_resumed(world: World, tmp_path: Path) -> None:
    labelling = run(world, tmp_path / "journal")
    write_labels(tmp_path / "labels", labelling.labels)
    labels = labelling.labels
    failed = [found for found in labels if not found.response.verdict.passed]
    assert 0 < len(failed) < len(labels)
    assert any(0 < found.last_solvable < len(found.labels) for found in failed), "no line where a program goes wrong"
    assert list(read_jsonl(tmp_path / "labels", LineLabels.from_json)) == sorted(
        labels, key=lambda found: (found.response.problem_id, found.response.index)
    )
    summary = cost_summary(labels, labelling.usage)
    assert summary["sandbox_cpu_seconds"] > 0
    assert summary["completions"] <= 4 * summary["probes_drawn"]

    data = (tmp_path / "journal").read_bytes()
    for number, cut in enumerate([len(data) // 3, len(data) * 2 // 3]):
        (tmp_path / f"cut-{number}").write_bytes(data[:cut])
        resumed = run(world, tmp_path / f"cut-{number}")
        write_labels(tmp_path / "resumed", resumed.labels)
        assert (tmp_path / "resumed").read_bytes() == (tmp_path / "labels").read_bytes()


def test_every_positive_has_a_program_that_proves_it(world: World, tmp_path: Path) -> None:
    # Without passing siblings, whose programs prove prefixes for nothing, proofs have to be drawn.
    world = replace(world, responses=[r for r in world.responses if not r.verdict.passed])
    run(world, tmp_path / "journal")
    token_text = TokenText(world.tokenizer)
    tests = {problem.id: problem.tests for problem in world.problems}
    proofs = []
    for record in read_jsonl(tmp_path / "journal", lambda record: record):
        for probe in record.get("probes", []):
            if probe["proof"] is None:
                continue
            response = world.responses[probe["response"]]
            kept = code_lines(response.text)[: probe["line"]]
            text = token_text.decode([*_ids_of(response, token_text, kept[-1].end), *probe["proof"]])
            assert text.startswith(response.text[: kept[-1].end].rstrip("\n"))
            proofs.append((extract_code(text), tests[response.problem_id]))
    assert proofs
    assert all(verdict.passed for verdict in world.sandbox.grade(proofs))


def _ids_of(response: Response, token_text: TokenText, end: int) -> list[int]:
    """The sampled ids whose text reaches `end`, found the slow way: by decoding longer and longer prefixes."""
    own = list(response.token_ids[:-1] if response.finished else response.token_ids)
    for count in range(len(own) + 1):
        if len(token_text.decode(own[:count])) >= end:
            return own[:count]
    raise AssertionError


def test_search_labels_against_the_oracle(world: World, tmp_path: Path) -> None:
    labelling = run(world, tmp_path / "journal", strategy="linear-scan")
    by_id = {problem.id: problem for problem in world.problems}
    oracle = ExactOracle(world.sandbox.evaluate_many)
    exact = oracle.label([(by_id[found.response.problem_id], found.response.text) for found in labelling.labels])
    quality = measure_labels(
        labelling.labels,
        [label.last_on_track for label in exact],
        [by_id[found.response.problem_id].difficulty for found in labelling.labels],
    )
    assert quality.agreement > quality.majority
    assert quality.precision_positive > 0.9, "a proved prefix is off track only where a rollout repaired it"
    assert quality.failed_lines > 20
    assert 0 <= quality.proved_off_track_responses < 0.3
