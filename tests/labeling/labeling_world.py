"""A small world in which labels can be worked out by hand: characters as tokens, programs as lists of words.

A problem's prompt names the words a program must consist of, in order, one per line; comments are free. A program
passes when its words are exactly those. The fake policy writes each next word rightly with a fixed probability.
Run as a script it labels a fixed set of responses into a folder, slowly enough to be killed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psgpo.config import LabelSettings, SamplingSettings
from psgpo.errors import RefusedRowsError
from psgpo.labeling import Labelling, label_responses, write_labels
from psgpo.labeling.engine import OpenEngine
from psgpo.lines import code_lines
from psgpo.records import Call, CallTests, Completion, Problem, Response, Status, Verdict

EOS = 0
WORDS = ["def", "apple", "birch", "cedar", "daisy", "elder", "fern", "grass"]


class CharTokenizer:
    """One id per ASCII character, named as in a byte-level vocabulary; 0 ends a sequence."""

    all_special_ids = (EOS,)
    bos_token_id = None
    eos_token_id = EOS

    class _Backend:
        def to_str(self) -> str:
            return '{"decoder": {"type": "ByteLevel"}}'

    backend_tokenizer = _Backend()

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(char) for char in text]}

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str | None]:
        names = {ord("\n"): "Ċ", ord(" "): "Ġ"}
        return [names.get(token, chr(token) if 32 < token < 127 else None) for token in ids]

    def decode(self, token_ids: list[int], **_: Any) -> str:
        return "".join(chr(token) for token in token_ids if token != EOS)

    def __len__(self) -> int:
        return 128


def encode(text: str) -> tuple[int, ...]:
    return tuple(ord(char) for char in text)


def problem(identifier: str, words: int) -> Problem:
    tests = CallTests(function="solve", calls=(Call(args=tuple(WORDS[:words]), expected=0),))
    # The source whose programs `splice` joins by lines.
    return Problem(id=identifier, prompt=",".join(WORDS[:words]), tests=tests, difficulty=words, source="opchain")


def response(
    of: Problem,
    text: str,
    *,
    index: int = 0,
    checkpoint: str = "one",
    finished: bool = True,
    status: Status | None = None,
) -> Response:
    passed = words_of(text) == list(of.tests.calls[0].args)
    if status is None:
        status = Status.PASSED if passed else Status.WRONG_ANSWER
    return Response(
        problem_id=of.id,
        index=index,
        checkpoint=checkpoint,
        token_ids=encode(text) + ((EOS,) if finished else ()),
        text=text,
        finished=finished,
        verdict=Verdict(status=status, tests_passed=int(passed), tests_total=1),
        prompt_ids=encode(f"{of.prompt}\n"),
    )


def words_of(text: str) -> list[str]:
    return [line.text for line in code_lines(text) if not line.neutral]


class FakeGrader:
    """Passes a program whose words are the problem's; remembers what it was asked."""

    def __init__(self) -> None:
        self.programs: list[str] = []

    def grade(self, items: Sequence[tuple[str, CallTests]], /) -> list[Verdict]:
        self.programs += [program for program, _ in items]
        return [self._verdict(program, tests) for program, tests in items]

    def submit(self, program: str, tests: CallTests, /) -> Future[Verdict]:
        future: Future[Verdict] = Future()
        future.set_result(self.grade([(program, tests)])[0])
        return future

    def _verdict(self, program: str, tests: CallTests) -> Verdict:
        passed = words_of(program) == list(tests.calls[0].args)
        status = Status.PASSED if passed else Status.WRONG_ANSWER
        return Verdict(status=status, tests_passed=int(passed), tests_total=1, cpu_seconds=0.001)


class LateGrader(FakeGrader):
    """Judges in a thread of its own, so that verdicts come while other things happen."""

    def __init__(self) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(1)

    def submit(self, program: str, tests: CallTests, /) -> Future[Verdict]:
        return self._pool.submit(lambda: self.grade([(program, tests)])[0])


class FakeSampler:
    """Continues with the prompt's words, each right with probability `skill`, sometimes after a comment."""

    def __init__(self, skill: float, *, pause: float = 0.0) -> None:
        self.skill, self.pause = skill, pause
        self.batches: list[list[tuple[tuple[int, ...], int]]] = []
        self.limits: list[int] = []

    @property
    def rows(self) -> list[tuple[tuple[int, ...], int]]:
        return [row for batch in self.batches for row in batch]

    def sample(
        self,
        prefixes: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int | Sequence[int] = 256,
    ) -> list[Completion]:
        limits = [max_new_tokens] * len(prefixes) if isinstance(max_new_tokens, int) else list(max_new_tokens)
        self.batches.append([(tuple(prefix), seed) for prefix, seed in zip(prefixes, seeds, strict=True)])
        self.limits += limits
        time.sleep(self.pause)
        return [self._complete(*row) for row in zip(prefixes, seeds, limits, strict=True)]

    def _complete(self, prefix: Sequence[int], seed: int, limit: int) -> Completion:
        assert EOS not in prefix
        assert limit > 0
        prompt, _, text = "".join(map(chr, prefix)).partition("\n")
        rng = random.Random(seed)
        out = "" if not text or text.endswith("\n") else "\n"
        for word in prompt.split(",")[len(words_of(text)) :]:
            if rng.random() < 0.1:
                out += "# note\n"
            out += (word if rng.random() < self.skill else "wrong") + "\n"
        ids = (*encode(out), EOS)[:limit]
        return Completion(token_ids=ids, logprobs=(0.0,) * len(ids), finished=ids[-1] == EOS)


class TextSampler(FakeSampler):
    """Behind a server that returns text: some replies cannot be proved to continue their prefix."""

    def __init__(self, skill: float, unproved: Callable[[str, int], bool]) -> None:
        super().__init__(skill)
        self._unproved = unproved

    def sample(self, prefixes: Sequence[Sequence[int]], *, seeds: Sequence[int], **options: Any) -> list[Completion]:
        drawn = super().sample(prefixes, seeds=seeds, **options)
        texts = ["".join(map(chr, prefix)) for prefix in prefixes]
        refused = {n: f"no proof of {text!r}" for n, text in enumerate(texts) if self._unproved(text, seeds[n])}
        if refused:
            kept = [None if n in refused else completion for n, completion in enumerate(drawn)]
            raise RefusedRowsError(f"{len(refused)} replies", refused, kept, unproved=True)
        return drawn


@dataclass(frozen=True)
class WorldEngine:
    """An engine of fake policies that can be sent to other processes, and can be told to die of a problem."""

    skills: tuple[tuple[str, float], ...] = (("one", 0.5), ("two", 0.8))
    pause: float = 0.0
    deadly: str = ""
    """Prompt whose completions kill the process, as long as lives are left."""
    lives: str = ""
    """File with one line per death that is still to come; empty: it always dies."""
    gate: str = ""
    """File that a process waits for after a few batches; empty: it waits for nothing."""
    gpus: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.skills)

    def environment(self, worker: int) -> dict[str, str]:
        return {}

    @contextmanager
    def open(self) -> Iterator[OpenEngine]:
        samplers = {name: _DeadlySampler(skill, pause=self.pause, engine=self) for name, skill in self.skills}
        yield OpenEngine(samplers=samplers, tokenizer=CharTokenizer(), sandbox=FakeGrader())


class _DeadlySampler(FakeSampler):
    def __init__(self, skill: float, *, pause: float, engine: WorldEngine) -> None:
        super().__init__(skill, pause=pause)
        self._engine = engine

    def sample(self, prefixes: Sequence[Sequence[int]], **options: Any) -> list[Completion]:
        while self._engine.gate and len(self.batches) > 4 and not Path(self._engine.gate).exists():
            time.sleep(0.01)
        return super().sample(prefixes, **options)

    def _complete(self, prefix: Sequence[int], seed: int, limit: int) -> Completion:
        engine = self._engine
        if engine.deadly and "".join(map(chr, prefix)).startswith(engine.deadly + "\n") and self._dies():
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._complete(prefix, seed, limit)

    def _dies(self) -> bool:
        if not self._engine.lives:
            return True
        path = Path(self._engine.lives)
        left = path.read_text().splitlines()
        path.write_text("\n".join(left[1:]))
        return bool(left)


def random_responses(
    count: int, seed: int, checkpoints: Sequence[str] = ("one",)
) -> tuple[list[Problem], list[Response]]:
    """Problems of 1..8 words and responses with mistakes, comments, missing and extra lines."""
    rng = random.Random(seed)
    problems = [problem(f"p{number}", rng.randint(1, 8)) for number in range(max(1, count // 4))]
    responses = []
    for number in range(count):
        of = problems[number % len(problems)]
        lines = []
        for word in of.tests.calls[0].args:
            lines += ["# note"] * (rng.random() < 0.15) + [word if rng.random() < 0.75 else "wrong"]
        lines += ["extra"] * (rng.random() < 0.1)
        text = "\n".join(lines[: len(lines) - (rng.random() < 0.1)]) + "\n" * (rng.random() < 0.7)
        checkpoint = checkpoints[number % len(checkpoints)]
        responses.append(response(of, text, index=number // len(problems), checkpoint=checkpoint))
    return problems, responses


def label(
    problems: Sequence[Problem], responses: Sequence[Response], journal: Path, samplers: dict[str, Any], **changes: Any
) -> Labelling:
    """`label_responses` in this world; `changes` are label settings, or sampling, sandbox, seed, progress."""
    return label_responses(
        responses,
        problems,
        samplers=samplers,
        tokenizer=CharTokenizer(),
        sandbox=changes.pop("sandbox", None) or FakeGrader(),
        sampling=changes.pop("sampling", SamplingSettings(max_new_tokens=200)),
        seed=changes.pop("seed", 7),
        journal=journal,
        progress=changes.pop("progress", None),
        surprise=changes.pop("surprise", None),
        settings=LabelSettings(**({"k": 6, "draw": 2, "in_flight": 8, "fill": False} | changes)),
    )


def main(folder: Path, strategy: str = "binary-search", count: int = 60) -> None:
    problems, responses = random_responses(count, seed=3, checkpoints=("one", "two"))
    samplers = {"one": FakeSampler(0.5, pause=0.002), "two": FakeSampler(0.8, pause=0.002)}
    labelling = label(
        problems,
        responses,
        folder / "journal.jsonl",
        samplers,
        k=12,
        draw=1,
        in_flight=6,
        strategy=strategy,
        sandbox=LateGrader(),
    )
    write_labels(folder / "labels.jsonl", labelling.labels)


def lives(folder: Path, strategy: str, count: int, kills: int, seed: int) -> None:
    """Label in forked processes, kill `kills` of them anywhere, let the next one finish; print where they were.

    A process is killed after it has written some rounds of its own, or a moment after it began.
    """
    rng = random.Random(seed)
    journal = folder / "journal.jsonl"
    sizes = []
    for number in range(kills + 1):
        before = journal.stat().st_size if journal.exists() else 0
        child = os.fork()
        if not child:
            main(folder, strategy, count)
            os._exit(0)
        if number < kills:
            if rng.random() < 0.7:
                while (journal.stat().st_size if journal.exists() else 0) <= before:
                    time.sleep(0.0005)
            time.sleep(rng.uniform(0, 0.012))
            os.kill(child, signal.SIGKILL)
        end = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert end == (-signal.SIGKILL if number < kills else 0), f"life {number} ended with {end}"
        sizes.append(journal.stat().st_size if journal.exists() else 0)
    print(*sizes)


if __name__ == "__main__":
    lives(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
