"""Line examples for training: (task, code prefix) and a label, each pair once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from psgpo.errors import UserError
from psgpo.mutation.labelled import LabelledProgram, load_programs


@dataclass(frozen=True, kw_only=True, slots=True)
class LineExample:
    """One line in its place."""

    problem_id: str
    """Split held-out data by this, never by line: programs of one problem share most of their text."""
    prompt: str
    prefix: str
    """The program up to this line, the line included, without a newline at its end."""
    label: int
    """+1 or -1."""
    line: int
    """Number of the line, from 1."""
    lines: int
    """Lines of the program it comes from."""
    family: str
    """`reference`, `bug` or `refactor`: of the program, not of the line."""
    kind: str
    program_id: str


def load_line_examples(path: Path | str, *, survivors: bool = True) -> list[LineExample]:
    """The labelled lines of a `programs.jsonl`, in its order, each (problem, prefix) once.

    Where two programs give one prefix different labels, +1 stands: a passing program proves its prefixes.

    Args:
        path: `programs.jsonl`, or the folder that holds it.
        survivors: keep planted bugs that no test found. They count as right, like everything that passes.

    Raises:
        UserError: the file is missing, malformed or holds no labelled line.
    """
    path = Path(path)
    path = path / "programs.jsonl" if path.is_dir() else path
    programs = load_programs(path)
    kept = [p for p in programs if survivors or p.family != "bug" or p.verdict == "fail"]
    examples = line_examples(kept)
    if not examples:
        raise UserError(f"{path}: holds no labelled line; run psgpo mutate again")
    return examples


def line_examples(programs: Iterable[LabelledProgram]) -> list[LineExample]:
    """Every labelled line of the programs, each (problem, prefix) once."""
    found: dict[tuple[str, str], LineExample] = {}
    for program in programs:
        prefix = ""
        for number, (text, label) in enumerate(zip(program.lines, program.labels, strict=True), start=1):
            prefix = text if number == 1 else f"{prefix}\n{text}"
            key = (program.problem_id, prefix)
            known = found.get(key)
            if label == 0 or (known is not None and known.label >= label):
                continue
            found[key] = LineExample(
                problem_id=program.problem_id,
                prompt=program.prompt,
                prefix=prefix,
                label=label,
                line=number,
                lines=len(program.lines),
                family=program.family,
                kind=program.kind,
                program_id=program.id,
            )
    return list(found.values())
