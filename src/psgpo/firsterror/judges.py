"""Who names the first error: a scorer of lines with a threshold, a chat model, or a trivial baseline."""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from psgpo.errors import UserError
from psgpo.firsterror.items import Item, Judged
from psgpo.lines import code_lines
from psgpo.mutation.chat import ChatServer
from psgpo.remote import UnusableReplyError
from psgpo.seeds import derive_seed

PROMPT = Path(__file__).parent / "judge.txt"
NO_ANSWER = -1
"""Stands for an answer that names neither a line nor none."""
RIGHT = 0
"""Stands for: the program is right."""
_ANSWER = re.compile(r"answer\W{0,6}(?:line\W{0,3})?(?<!-)(\d+|none|right|correct)\b", re.IGNORECASE)
_FIELD = re.compile(r"\{(task|code)\}")


class LineScorer(Protocol):
    """Scores the lines of a program: the higher, the better the prefix that ends with the line."""

    def score_lines(self, problem: str, code: str, /) -> Sequence[float]:
        """One score per line of `psgpo.lines.code_lines(code)`."""
        ...


def scores_of(scorer: LineScorer, items: Sequence[Item]) -> list[list[float]]:
    """The scores of the lines of items, checked; in one call where the scorer has `score_many(pairs)`.

    Raises:
        UserError: not one score per line, or one that is no number.
    """
    many = getattr(scorer, "score_many", None)
    if many is not None:
        found = many([(item.prompt, item.code) for item in items])
    else:
        found = [scorer.score_lines(item.prompt, item.code) for item in items]
    rows = [[float(score) for score in row] for row in found]
    for item, row in zip(items, rows, strict=True):
        lines = len(code_lines(item.code))
        if len(row) != lines:
            raise UserError(
                f"item {item.id}: the scorer gave {len(row)} scores for {lines} lines; it must give one each"
            )
        if any(math.isnan(score) for score in row):
            raise UserError(f"item {item.id}: the scorer gave NaN for line {1 + [*map(math.isnan, row)].index(True)}")
    return rows


def named_line(item: Judged, scores: Sequence[float], threshold: float) -> int:
    """The first line that may be named and scores below the threshold; RIGHT when there is none."""
    return next((line for line in item.candidates if scores[line - 1] < threshold), RIGHT)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatJudge:
    """A model that is shown the numbered lines and names one."""

    server: ChatServer
    prompt: str
    """With the fields {task} and {code}."""

    def settings(self) -> dict[str, object]:
        digest = hashlib.sha256(self.prompt.encode()).hexdigest()[:16]
        return {
            "judge": self.server.model,
            "url": self.server.url,
            "temperature": self.server.temperature,
            "max_tokens": self.server.max_tokens,
            "prompt": digest,
        }

    def name_line(self, item: Item, *, seed: int = 0) -> tuple[int, str]:
        """(line, RIGHT or NO_ANSWER; the model's words).

        Raises:
            UserError: the server does not answer.
        """
        code = "\n".join(f"{n}: {line.text}" for n, line in enumerate(code_lines(item.code), start=1))
        values = {"task": item.prompt, "code": code}
        question = _FIELD.sub(lambda match: values[match.group(1)], self.prompt)
        try:
            reply = self.server.ask(question, seed=derive_seed(seed, "judge", item.id))
        except UnusableReplyError as error:
            return NO_ANSWER, f"[{error}]"
        return read_answer(reply, item), reply


def read_answer(reply: str, item: Item) -> int:
    """What a reply names: the last `ANSWER: n` in it, or the number or word that is all of it."""
    found = _ANSWER.findall(reply) or re.findall(r"^\W*(?<!-)(\d+|none)\W*$", reply, re.IGNORECASE)
    if not found:
        return NO_ANSWER
    word = found[-1].lower()
    if not word.isdigit():
        return RIGHT
    number = int(word)
    return number if number <= len(code_lines(item.code)) else NO_ANSWER


def read_judge_prompt(path: Path) -> str:
    """The text of a prompt file.

    Raises:
        UserError: it cannot be read or shows no program.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give a text file") from None
    if "{code}" not in text:
        raise UserError(f"{path}: the prompt lacks {{code}}; see docs/firsterror.md")
    return text


def _random(item: Item) -> int:
    return random.Random(derive_seed(0, "baseline", item.id)).choice([RIGHT, *item.candidates])


BASELINES: Mapping[str, Callable[[Item], int]] = {
    "all-right": lambda item: RIGHT,
    "first-line": lambda item: item.candidates[0],
    "middle-line": lambda item: item.candidates[len(item.candidates) // 2],
    "last-line": lambda item: item.candidates[-1],
    "random": _random,
}
"""Answers without a look at the program."""
