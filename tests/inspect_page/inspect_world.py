"""A small run directory whose token ids are real: a tokenizer, two PRMs with random heads, labels, a journal.

Problem `p/held` is held out from PRM training and has three responses, `p/seen` one, `t/1` is a test problem with
evaluation samples of two policies and, being a problem of OpChain, known to the oracle.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from psgpo.config import parse_recipe
from psgpo.jsonl import write_json, write_jsonl
from psgpo.labeling import tokenizer_fingerprint
from psgpo.lines import TokenText, code_lines, line_end_tokens
from psgpo.models import TokenValueModel, create_policy, train_tokenizer
from psgpo.prm import ScorerRecord
from psgpo.prompts import build_prompt_ids
from psgpo.records import Call, CallTests, LineLabels, Probe, Problem, Response, Status, Verdict
from psgpo.seeds import is_held_out

HOLDOUT = 0.5
TEMPLATE = "# {prompt}\n"
HOSTILE = "</script><script>document.title='broken'</script><!-- \u202e"
GOOD = "def solve(x):\n    y = x + 1\n    return y\n"
BAD = "def solve(x):\n    # almost\n    y = x - 1\n    return y\n"
WORSE = f"def solve(x):\n    return '{HOSTILE}'\n"
ADDED = "y = x + 1\n    return y\n"
"""What a completion that passes writes after the first two lines of BAD."""
VALUE_SCALE, VALUE_SHIFT = 0.5, -0.25
ARMS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "dense": {"line_reward": "sum", "prm": "sign"},
    "both": {"line_reward": "sum", "prm": "sign", "value_init": "sign"},
    "late": {"value_init": "progress"},
    "exact": {"line_reward": "sum", "prm": "oracle"},
    "judged": {"line_reward": "program", "prm": "judge"},
}


def held(prefix: str, wanted: bool) -> str:
    """An id that the hash puts on the wanted side."""
    return next(f"{prefix}{n}" for n in range(99) if is_held_out(f"{prefix}{n}", HOLDOUT) == wanted)


HELD, SEEN = held("p/held-", True), held("p/seen-", False)


def problem(name: str, prompt: str, split: str) -> Problem:
    tests = CallTests(function="solve", calls=(Call(args=(1,), expected=2), Call(args=(-5,), expected=-4)))
    metadata = {"operations": [{"name": "int_add", "parameter": 1}]}
    known = {"difficulty": 1, "reference_solution": GOOD, "metadata": metadata}
    return Problem(id=name, prompt=prompt, tests=tests, split=split, **known)


PROBLEMS = {
    HELD: problem(HELD, "add one", "train"),
    SEEN: problem(SEEN, f"add one {HOSTILE}", "train"),
    "t/1": problem("t/1", "add one", "test"),
}


class World:
    """What the files are made with."""

    def __init__(self) -> None:
        texts = [f"# {p.prompt}\n{text}" for p in PROBLEMS.values() for text in (GOOD, BAD, WORSE)]
        self.tokenizer = train_tokenizer(texts, 320)
        self.text = TokenText(self.tokenizer)

    def response(self, name: str, text: str, checkpoint: str, index: int = 0) -> Response:
        ids = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
        passed = text == GOOD
        status = Status.PASSED if passed else Status.WRONG_ANSWER
        verdict = Verdict(
            status=status,
            tests_passed=2 if passed else 0,
            tests_total=2,
            outcomes=(status, status),
            mode="calls",
            detail="" if passed else f"got {HOSTILE}",
        )
        return Response(
            problem_id=name,
            index=index,
            checkpoint=checkpoint,
            token_ids=tuple(ids),
            text=text,
            finished=True,
            verdict=verdict,
            prompt_ids=build_prompt_ids(self.tokenizer, TEMPLATE, PROBLEMS[name]),
        )

    def label(self, response: Response, last: int, probes: Sequence[Probe] = ()) -> LineLabels:
        lines = code_lines(response.text)
        _, ends = self.text.decode_with_ends(response.token_ids)
        return LineLabels(
            response=response,
            line_ends=line_end_tokens(ends, lines),
            labels=tuple(0.0 if line.neutral else 1.0 if m < last else -1.0 for m, line in enumerate(lines)),
            last_solvable=last,
            strategy="binary-search",
            probes=tuple(probes),
            completions=sum(probe.drawn for probe in probes),
            tokens=9,
            executions=1,
            tokenizer=tokenizer_fingerprint(self.tokenizer),
        )

    def added_ids(self, text: str) -> list[int]:
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]


def labels_of(world: World) -> list[LineLabels]:
    """In the order in which they were labelled: not that of the file."""
    probes = [Probe(line=3, drawn=4, passed=0), Probe(line=1, drawn=2, passed=1)]
    asked = world.label(world.response(HELD, BAD, "baseline/step-2"), 2, probes)
    # The same prefix of the same checkpoint: its probe was drawn for the response before it.
    shared = world.label(world.response(HELD, BAD, "baseline/step-2", 1), 2, probes[1:])
    return [
        asked,
        shared,
        world.label(world.response(SEEN, WORSE, "baseline/step-1"), 0),
        world.label(world.response(HELD, GOOD, "baseline/step-1"), 3),
    ]


def make_run(path: Path, world: World) -> Path:
    """Write the run; returns its folder."""
    recipe = {
        "name": "small",
        "out": str(path),
        "problems": {"kind": "opchain"},
        "labels": {"shards": 2, "holdout": HOLDOUT},
        "prm": {
            "sign": {"target": "sign"},
            "progress": {"target": "progress"},
            "late": {"target": "sign"},
            "judge": {"target": "sign", "scope": "program"},
        },
        "arms": ARMS,
        "rl": {"gae_lambda": 1.0},
    }
    write_json(path / "recipe.json", parse_recipe(recipe, origin="test").model_dump(mode="json"))
    write_json(path / "manifest.json", {"command": "psgpo run small.toml"})
    for split, names in (("label", [HELD, SEEN]), ("test", ["t/1"])):
        write_jsonl(path / "problems" / f"{split}.jsonl", (PROBLEMS[name].to_json() for name in names))
    write_labels(path / "labels", world, "shards/1.journal.jsonl")
    # The other problem is the second shard's; its response needed no draw.
    write_jsonl(path / "labels" / "shards" / "2.journal.jsonl", [{"kind": "header", "labels.completer": "own"}])
    exact = [
        {"problem_id": r.problem_id, "index": r.index, "checkpoint": r.checkpoint, "lines": len(label.labels)}
        | {"last_on_track": label.last_solvable, "progress": [0.5] * len(label.labels)}
        for label in labels_of(world)
        for r in [label.response]
    ]
    write_jsonl(path / "labels" / "exact.jsonl", exact)
    scores = {"problem_id": HELD, "index": 0, "checkpoint": "baseline/step-2", "scores": [0.9, None, -0.8, -1.0]}
    write_jsonl(path / "prm" / "sign" / "scores.jsonl", [scores])
    write_models(path, world)
    write_jsonl(path / "rl" / "both" / "metrics.jsonl", [{"value_scale": VALUE_SCALE, "value_shift": VALUE_SHIFT}])
    for policy in ("baseline", "dense"):
        rows = [
            world.response("t/1", text, policy, number % 2).to_json() | {"greedy": text == GOOD, "difficulty": 1}
            for number, text in enumerate((BAD, WORSE, GOOD))
        ]
        write_jsonl(path / "evaluation" / policy / "samples.jsonl", rows)
        write_json(path / "evaluation" / policy / "summary.json", {"policy": policy})
    return path


def write_labels(folder: Path, world: World, journal: str) -> None:
    """labels.jsonl, responses.jsonl and the journal: the proof of line 1 was drawn for the first response alone."""
    labels = labels_of(world)
    write_jsonl(folder / "responses.jsonl", (label.response.to_json() for label in labels))
    by_name = sorted(labels, key=lambda x: (x.response.problem_id, x.response.checkpoint, x.response.index))
    write_jsonl(folder / "labels.jsonl", (label.to_json() for label in by_name))
    tokens: dict[str, Any] = {"tokens": 9, "executions": 1}
    rounds = [
        [{"response": 0, "line": 3, "drawn": 4, "passed": [], "proof": None}],
        [{"response": 0, "line": 1, "drawn": 2, "passed": [1], "proof": world.added_ids(ADDED)}],
    ]
    measures = ("cpu_seconds", "sandbox_cpu_seconds", "generation_seconds", "waiting_seconds", "row_steps")
    spent = dict.fromkeys((*measures, "slot_steps"), 0)
    rows = [{"kind": "round", "probes": [probe | tokens for probe in probes]} | spent for probes in rounds]
    write_jsonl(folder / journal, [{"kind": "header", "labels.completer": "own"}, *rows])


def write_search(file: Path, world: World) -> None:
    """As `psgpo rerank search` leaves it: a row per problem, and of one nothing was found."""
    found = [world.response(HELD, text, "beam", number) for number, text in enumerate((BAD, GOOD))]
    rows = [
        {"problem_id": HELD, "spent": 16, "candidates": [{"tokens": 9, "response": one.to_json()} for one in found]},
        {"problem_id": SEEN, "spent": 20, "candidates": []},
    ]
    write_jsonl(file, rows)


def write_models(path: Path, world: World) -> None:
    """The SFT policy and PRMs on its trunk. `late` is not trained yet."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    policy = create_policy(world.tokenizer, seed=0, max_position_embeddings=256, **sizes)
    policy.save_pretrained(path / "sft" / "model")
    world.tokenizer.save_pretrained(path / "sft" / "model")
    for seed, (name, target) in enumerate((("sign", "sign"), ("progress", "progress"), ("judge", "sign"))):
        model = TokenValueModel.from_policy(policy, head_init="normal", seed=seed)
        with torch.no_grad():
            model.head.weight.mul_(20.0)
        folder = path / "prm" / name / "model"
        model.save_pretrained(folder, world.tokenizer)
        scope = "program" if name == "judge" else "line"
        record = {"scope": scope, "target": target, "prompt_template": TEMPLATE, "threshold": 0.0}
        ScorerRecord(kind="causal", **record).save(folder)
