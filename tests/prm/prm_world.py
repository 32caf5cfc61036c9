"""A tiny world for PRM tests: programs that are good until a line says `boom`."""

from __future__ import annotations

import random
from pathlib import Path

from psgpo.config import PrmSettings
from psgpo.lines import TokenText, code_lines, line_end_tokens
from psgpo.models import create_policy, train_tokenizer
from psgpo.prm.data import PrmExample, build_examples
from psgpo.records import LineLabels, Response, Status, Verdict

GOOD, BAD, COMMENT = ("    x = x + 1", "    x = x * 2", "    x = x - 3"), "    x = boom", "    # note"
SETTINGS = PrmSettings(target="sign", epochs=3, batch_size=8, learning_rate=3e-3)


def save_policy(folder: Path, layers: int = 1) -> None:
    """A small untrained policy and its tokenizer."""
    tokenizer = train_tokenizer(["\n".join(["# task", "def solve(x):", *GOOD, BAD, COMMENT, "    return x"])] * 4, 300)
    create_policy(
        tokenizer, hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=2
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def labelled(tokenizer, text: str, last: int, *, problem: str = "p", index: int = 0) -> LineLabels:
    """Labels of a response whose first `last` lines are solvable."""
    token_ids = (*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)
    decoded, ends = TokenText(tokenizer).decode_with_ends(token_ids)
    assert decoded == text
    lines = code_lines(text)
    passed = last == len(lines)
    verdict = Verdict(status=Status.PASSED if passed else Status.WRONG_ANSWER, tests_passed=int(passed), tests_total=1)
    response = Response(
        problem_id=problem,
        index=index,
        checkpoint="c",
        token_ids=token_ids,
        text=text,
        finished=True,
        verdict=verdict,
        prompt_ids=tuple(tokenizer("# task\n", add_special_tokens=False)["input_ids"]),
    )
    labels = tuple(0.0 if line.neutral else 1.0 if m <= last else -1.0 for m, line in enumerate(lines, start=1))
    return LineLabels(
        response=response,
        line_ends=line_end_tokens(ends, lines),
        labels=labels,
        last_solvable=last,
        strategy="binary-search",
        probes=(),
        completions=0,
        tokens=0,
        executions=1,
    )


def random_labels(tokenizer, count: int, seed: int = 0) -> list[LineLabels]:
    """Programs of 2 to 8 lines, half of them with one `boom`."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        lines = [rng.choice([*GOOD, COMMENT]) for _ in range(rng.randint(2, 8))]
        last = len(lines)
        if number % 2:
            last = rng.randrange(len(lines))
            lines[last] = BAD
        made.append(labelled(tokenizer, "\n".join(lines) + "\n", last, problem=f"p{number // 2}", index=number % 2))
    return made


def examples(tokenizer, count: int, settings: PrmSettings = SETTINGS, seed: int = 0) -> list[PrmExample]:
    return build_examples(random_labels(tokenizer, count, seed), settings)
