"""What the pages' commands find on the reader's desk, and how they are made small. Everything is made up."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

from docs_scripts import script_of, tested_elsewhere
from docs_world import PSGPO, Command, run
from transformers import AutoTokenizer, BertConfig, BertModel, Qwen2Config

SCORER = """class Scorer:
    def score_lines(self, problem, code):
        return [1.0] * len(code.splitlines())


load = Scorer
"""
CHAT = "{% for message in messages %}# {{ message['content'] }}\n{% endfor %}"
HUB = {"humaneval", "humanevalplus", "mbpp", "mbpp-sanitized", "mbppplus", "livecodebench"}
STAGED = ("run", "sft", "rl", "label", "evaluate")
"""Commands that start processes for stages."""
ANYWHERE = ("processes", "sampling", "rl", "labels", "evaluation")
"""Tables of the small settings that fit any recipe."""
SMALL: dict[tuple[str, ...], list[str]] = {
    ("eval",): ["--samples", "2", "--limit", "6"],  # all of the desk's HumanEval: rerank wants samples of every problem
    # By rollouts: splicing labels what it proves, and of a policy this small it proves nothing.
    ("labels", "make"): ["--limit", "10", "--max-new-tokens", "32", "--strategy", "binary-search", "--k", "2"],
    ("mutate",): ["--generated", "5"],
    ("prm", "train"): ["--epochs", "1"],
    ("firsterror", "make"): ["--opchain", "6"],
    ("rerank", "search"): ["--budget", "64", "--limit", "2"],
    ("-m", "psgpo.problems.opchain", "rates"): ["--operations", "1", "2"],
    ("-m", "psgpo.problems.opchain", "strength"): ["--count", "10"],
}
"""Options that a command gets on top; the last one of a name counts."""


NEEDED = {
    "docs/eval.md": {"answers.jsonl": "answers.jsonl", "test.jsonl": "problems.jsonl"},
    "docs/firsterror.md": {"mutants": "labels/mbpp", "humaneval-mutants": "labels/humaneval"},
    "docs/how-to/own-model.md": {"chat_template.jinja": "models/policy/chat_template.jinja"},
    "docs/inspect.md": {"labels": "labels", "run/prm/sign": "prm/mine"},
    "docs/label-files.md": {"labels/labels.jsonl": "labels.jsonl", "labels/problems.jsonl": "problems.jsonl"},
    "docs/prm.md": {"labels": "labels/humaneval", "mutants": "labels/mbpp-train"},
    "docs/prm-eval.md": {
        "mutants": "labels/mbpp",
        "ngrams": "prm/mutants",
        "orm": "prm/orm",
        "items.jsonl": "items.jsonl",
    },
    "docs/rerank.md": {"ngrams/model": "path/to/prm", "orm": "runs/demo/prm/orm"},
    "docs/report.md": {f"runs/{name}": f"runs/{name}" for name in ("a", "b", "c", "more-kl")},
}
"""Page to what its commands take from elsewhere: name in the store, name on the page."""
Json = dict[str, Any]
OTHER_RUNS: dict[str, Json] = {
    "a": {"seed": 1},
    "b": {"seed": 2},
    "c": {"seed": 3},
    "more-kl": {"rl": {"kl_beta": 0.1}},
}
"""Copies of the demo's run in the store, and what their recipes say instead."""


def lay_out(desk: Path) -> Path:
    """Models, data files and samples by the names that the pages use; the store of `NEEDED`, beside the desk.

    Args:
        desk: holds recipes/ and runs/demo.
    """
    sft = desk / "runs" / "demo" / "sft" / "model"
    for name in ("models/policy", "path/to/model"):
        shutil.copytree(sft, desk / name)
    save_encoder(desk / "models" / "unixcoder-base", sft)
    Qwen2Config(num_hidden_layers=2).save_pretrained(desk / "Qwen2.5-7B-Instruct")
    write_rows(desk / "HumanEval.jsonl.gz", [_humaneval(number) for number in range(6)])
    rows = [_mbpp(number) for number in (2, 11, 12, 520, *range(601, 631))]
    for name in ("mbpp.jsonl", "mbpp.jsonl.gz"):
        write_rows(desk / name, rows)
    write_rows(desk / "MbppPlus.jsonl.gz", [_mbpp_plus(number) for number in (2, 11, 601, 602)])
    samples = [{"task_id": f"HumanEval/{n}", "completion": f"    return x + {n}\n"} for n in range(6)]
    write_rows(desk / "samples.jsonl", samples)
    for name in ("recipe.toml", "mine.toml"):
        shutil.copy(desk / "recipes" / "demo.toml", desk / name)
    (desk / "mypackage").mkdir()
    (desk / "mypackage" / "prm.py").write_text(SCORER, encoding="utf-8")
    for split, seed in (("train", "1"), ("test", "2")):
        options = ["--split", split, "--count", "6", "--operations", "1-2", "--seed", seed, "--out", f"{split}.jsonl"]
        run([*PSGPO, "problems", *options], desk)
    return _stock(desk, desk.parent / f"{desk.name}-store")


def _stock(desk: Path, store: Path) -> Path:
    """What some pages take from others: mutants, labels, PRMs, items."""
    shutil.copytree(desk / "runs" / "demo" / "labels", store / "labels", ignore=shutil.ignore_patterns("shards"))
    # The policy is too small to have written a good line: the first one of each program is declared good.
    rows = [json.loads(line) for line in (store / "labels" / "labels.jsonl").read_text(encoding="utf-8").splitlines()]
    good = [row | {"labels": [1.0, *row["labels"][1:]], "last_solvable": 1} for row in rows if len(row["labels"]) > 1]
    write_rows(store / "labels" / "labels.jsonl", good)
    shutil.copy(desk / "runs" / "demo" / "problems" / "label.jsonl", store / "labels" / "problems.jsonl")
    problems = [json.loads(line) for line in (desk / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    write_rows(
        store / "answers.jsonl", [{"task_id": one["id"], "solution": one["reference_solution"]} for one in problems]
    )
    shutil.copy(desk / "test.jsonl", store / "test.jsonl")
    (store / "chat_template.jinja").write_text(CHAT, encoding="utf-8")
    for name, benchmark, file in (
        ("mutants", "mbpp", "mbpp.jsonl"),
        ("humaneval-mutants", "humaneval", "HumanEval.jsonl.gz"),
    ):
        data = ["--benchmark", benchmark, "--data", file, "--generated", "5"]
        run([*PSGPO, "mutate", *data, "--out", str(store / name)], desk)
    for name, scope in (("ngrams", "line"), ("orm", "program")):
        kind = ["--kind", "ngrams", "--scope", scope, "--epochs", "1"]
        run([*PSGPO, "prm", "train", str(store / "mutants"), *kind, "--out", str(store / name)], desk)
    run([*PSGPO, "firsterror", "make", "--opchain", "6", "--out", str(store / "items.jsonl")], desk)
    shutil.copytree(desk / "runs" / "demo" / "prm" / "sign", store / "run" / "prm" / "sign")
    for name, changes in OTHER_RUNS.items():
        _rename(shutil.copytree(desk / "runs" / "demo", store / "runs" / name), changes)
    return store


def _rename(run: Path, changes: Json) -> None:
    """Let a run be one of another seed or other settings, by its recipe; its numbers stay."""
    file = run / "recipe.json"
    recipe = json.loads(file.read_text(encoding="utf-8"))
    recipe |= {key: recipe[key] | value if isinstance(value, dict) else value for key, value in changes.items()}
    file.write_text(json.dumps(recipe | {"out": str(run)}), encoding="utf-8")


def supply(page: str, store: Path, folder: Path) -> None:
    """Copy what a page needs from the store."""
    for there, here in NEEDED.get(page, {}).items():
        (folder / here).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (store / there).is_dir() else shutil.copy
        copy(store / there, folder / here)


def save_encoder(folder: Path, tokenizer: Path) -> None:
    """A tiny encoder without training, with the policy's tokenizer."""
    text = AutoTokenizer.from_pretrained(tokenizer)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(text), max_position_embeddings=256, pad_token_id=text.pad_token_id, **sizes)
    BertModel(config).save_pretrained(folder)
    text.save_pretrained(folder)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


def _humaneval(number: int) -> dict[str, Any]:
    return {
        "task_id": f"HumanEval/{number}",
        "prompt": f'def add{number}(x: int) -> int:\n    """x plus {number}."""\n',
        "entry_point": f"add{number}",
        "canonical_solution": f"    total = x\n    total = total + {number}\n    return total\n",
        "test": f"def check(candidate):\n    assert candidate(1) == {1 + number}\n    assert candidate(5) > {number}\n",
    }


def _mbpp(number: int) -> dict[str, Any]:
    return {
        "task_id": number,
        "text": f"Write a function to multiply by {number}.",
        "code": f"def times{number}(x):\n    factor = {number}\n    result = x * factor\n    return result",
        "test_list": [f"assert times{number}(1) == {number}", f"assert times{number}(2) == {2 * number}"],
        "test_setup_code": "",
        "challenge_test_list": [],
    }


def _mbpp_plus(number: int) -> dict[str, Any]:
    return {
        "task_id": f"Mbpp/{number}",
        "prompt": f'"""\nWrite a function to multiply by {number}.\nassert times{number}(1) == {number}\n"""\n',
        "entry_point": f"times{number}",
        "canonical_solution": f"\ndef times{number}(x):\n    return x * {number}\n",
        "base_input": [[1], [2]],
        "plus_input": [[0], [-3]],
        "atol": 0,
        "contract": "",
        "assertion": "",
    }


def not_here(command: Command) -> str:
    """Why a command is not run on the desk; empty where it is."""
    program, arguments = command.words[0], command.psgpo
    if arguments is None:
        if script := script_of(command):
            return tested_elsewhere(script)
        return "" if program in ("python", ".venv/bin/python") else f"{program} is not psgpo"
    if program in ("accelerate", "torchrun"):
        return "launchers have tests of their own"
    data = {"--benchmark": "--data", "--problems": "--data", "--plus": "--plus-data"}
    for option, file in data.items():
        if option in arguments and arguments[arguments.index(option) + 1] in HUB and file not in arguments:
            return f"downloads {arguments[arguments.index(option) + 1]}"
    recipe = next((word for word in arguments if word.startswith("recipes/")), "")
    if re.search("qwen|prlcoder", recipe) and arguments[0] != "plan":
        return "needs models from the Hub"
    return ""


def small_options(words: list[str]) -> list[str]:
    """Options that a command gets on top."""
    return next((added for key, added in SMALL.items() if tuple(words[: len(key)]) == key), [])


def _is_demo(recipe: Path) -> bool:
    """By whatever name the reader has it."""
    return recipe.is_file() and tomllib.loads(recipe.read_text(encoding="utf-8"))["name"] == "demo"


def made_small(arguments: list[str], overrides: list[str], server: str) -> list[str]:
    """The command on tiny settings, its server the test's own."""
    words = [word.replace("http://localhost:8000/v1", server) for word in arguments]
    if words[0] == "inspect" and "--problem" in words:  # of a run of another machine
        at = words.index("--problem")
        del words[at : at + 2]
    if words[0] != "eval" or "--model" in words:
        words += small_options(words)
    if words[0] in STAGED or words[0] == "plan" or words[:2] == ["verl", "export"]:
        demo = any(word.endswith(".toml") and _is_demo(Path(word)) for word in words)
        kept = [one for one in overrides if demo or one.partition(".")[0] in ANYWHERE]
        words += [word for one in kept for word in ("--set", one)]
        words += [] if demo else ["--set", "model.dtype=float32", "--set", "rl.critic_warmup=0"]
    return words
