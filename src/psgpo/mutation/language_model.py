"""The second teacher: a language model that rewrites one line at a time, behind any OpenAI-compatible server.

PRLCoder asked a model for mutants and for refactorings of every line. The prompts are files (`prompts/`), with the
fields {task}, {code} (with line numbers), {line} (the number) and {text} (the line); other files may be given.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from psgpo.errors import UserError
from psgpo.lines import extract_code
from psgpo.mutation.candidates import Candidate, changed_lines
from psgpo.mutation.chat import ChatServer
from psgpo.mutation.operators.registry import Family
from psgpo.mutation.program import Program, parse
from psgpo.problems.programs import plain_prompt
from psgpo.records import Problem
from psgpo.remote import UnusableReplyError
from psgpo.seeds import derive_seed

PROMPTS: dict[Family, Path] = {
    family: Path(__file__).parent / "prompts" / f"{family}.txt" for family in get_args(Family)
}
_FIELD = re.compile(r"\{(task|code|line|text)\}")
_NUMBERED = re.compile(r"^\s*\d+[:|] ?")
_MAX_REPLY = 4_000
"""Longest replacement of a line, characters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageModel:
    """A teacher that asks a model for every line."""

    server: ChatServer
    prompts: Mapping[Family, str]
    """Text of the prompt for each family; a family that is left out is not asked for."""
    per_line: int = 1
    """Answers asked for each line and family."""
    concurrency: int = 8
    """Requests at the same time."""

    @property
    def name(self) -> str:
        return self.server.model

    def settings(self) -> dict[str, object]:
        server = self.server
        prompts = {family: hashlib.sha256(text.encode()).hexdigest()[:16] for family, text in self.prompts.items()}
        return {
            "url": server.url,
            "temperature": server.temperature,
            "max_tokens": server.max_tokens,
            "per_line": self.per_line,
            "prompts": prompts,
        }

    def propose(self, problem: Problem, program: Program, *, seed: int) -> list[Candidate]:
        """Ask for every line that is not neutral nor given; a reply that is no replacement of the line has no code.

        Raises:
            UserError: the server does not answer, or with nothing that can be used for any line.
        """
        asked = [
            (number, family, draw)
            for number, line in enumerate(program.lines, start=1)
            if not line.neutral and number > program.given_lines
            for family in self.prompts
            for draw in range(self.per_line)
        ]

        reasons: list[str] = []

        def ask(item: tuple[int, Family, int]) -> Candidate:
            number, family, _ = item
            prompt = filled(self.prompts[family], problem, program, number)
            try:
                reply = self.server.ask(prompt, seed=derive_seed(seed, "teacher", problem.id, *item))
            except UnusableReplyError as error:
                reasons.append(str(error))
                reply = ""
            return self._candidate(program, number, family, reply)

        with ThreadPoolExecutor(max_workers=self.concurrency) as threads:
            candidates = list(threads.map(ask, asked))
        if asked and len(reasons) == len(asked):
            raise UserError(
                f"{self.server.url}: none of {len(asked)} replies for {problem.id} can be used, the last: "
                f"{reasons[-1]}; check the address and the model"
            )
        return candidates

    def _candidate(self, program: Program, number: int, family: Family, reply: str) -> Candidate:
        code = with_line(program, number, reply)
        changed = changed_lines(program.text, code) if code is not None else None
        same = code == program.text
        return Candidate(
            code=code if code is not None and (same or changed is not None) else "",
            teacher=self.name,
            operator=f"model-{family}",
            kind="model",
            family=family,
            line=number,
            mutated_line=changed.first if changed is not None else number,
            in_place=changed is not None and changed.in_place,
        )


def read_prompt(path: Path) -> str:
    """The text of a prompt file.

    Raises:
        UserError: it cannot be read, or does not ask for a line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give a text file") from None
    missing = [field for field in ("code", "line") if "{" + field + "}" not in text]
    if missing:
        raise UserError(
            f"{path}: the prompt lacks {', '.join('{' + field + '}' for field in missing)}; see docs/mutation.md"
        )
    return text


def filled(prompt: str, problem: Problem, program: Program, number: int) -> str:
    """A prompt with its fields filled in, each once: braces in the program stay what they are."""
    code = "\n".join(f"{n}: {line.text}" for n, line in enumerate(program.lines, start=1))
    values = {"task": plain_prompt(problem), "code": code, "line": str(number), "text": program.line_text(number)}
    return _FIELD.sub(lambda match: values[match.group(1)], prompt)


def with_line(program: Program, number: int, reply: str) -> str | None:
    """The program with line `number` replaced by what a reply holds; None when the reply cannot be that.

    Models lose the indentation or repeat the line number; both are mended. A reply of several lines is one replacement.
    """
    text = extract_code(reply).strip("\n").rstrip()
    if not text.strip() or len(text) > _MAX_REPLY:
        return None
    text = textwrap.dedent("\n".join(_NUMBERED.sub("", line) for line in text.split("\n")))
    old = program.line_text(number)
    indent = old[: len(old) - len(old.lstrip())]
    start = program.line_start(number)
    end = start + len(old)
    ending = "\r" if old.endswith("\r") else ""
    code = program.text[:start] + textwrap.indent(text, indent) + ending + program.text[end:]
    try:
        parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return None
    return code
