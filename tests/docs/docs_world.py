"""Pages, and what stands in them: fenced blocks, the commands of shell blocks, code in the running text."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer

from psgpo.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GENERATED = ROOT / "docs" / "results" / "study"
"""Pages that `benchmarks/study table` writes."""
PSGPO = [sys.executable, "-m", "psgpo"]
SHELL = {"sh", "shell", "bash", "console"}
OTHERS = {
    "accelerate",
    "torchrun",
    "pip",
    "hf",
    "tensorboard",
    "export/run.sh",
    "vllm",
    "cp",
    "cat",
    "head",
    "chromium",
}
"""Programs whose arguments are not ours to check."""
PROGRAMS = {"psgpo", "make", "python", ".venv/bin/python", ".venv/bin/psgpo", *OTHERS}
MARK = re.compile(r"<!-- not run: (.+?) -->")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    """Of the fence, from 1."""
    language: str
    """`sh` too for a block without a language that starts with a program's name; `text` for other such blocks."""
    text: str
    not_run: str
    """The reason, of the comment directly above; empty for none."""

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """One command of a shell block, or of the running text."""

    place: str
    words: tuple[str, ...]
    whole: bool
    """Every argument is there; False in running text."""

    @property
    def psgpo(self) -> list[str] | None:
        """The arguments of psgpo, however it is started; None for another program."""
        words = list(self.words)
        if Path(words[0]).name == "psgpo":
            return words[1:]
        if "-m" in words and words[words.index("-m") + 1 :][:1] == ["psgpo"]:
            return words[words.index("-m") + 2 :]
        return None

    def __str__(self) -> str:
        return f"{self.place}: {shlex.join(self.words)}"


def blocks(page: Path) -> list[Block]:
    found, lines = [], page.read_text(encoding="utf-8").splitlines()
    start, indent = None, 0
    for number, line in enumerate(lines):
        fence = re.match(r"( *)```(\w*)\s*$", line)
        if start is None and fence:
            start, indent, language = number, len(fence[1]), fence[2]
        elif start is not None and fence and not fence[2]:
            text = "\n".join(row[indent:] for row in lines[start + 1 : number])
            mark = MARK.fullmatch(lines[start - 1].strip()) if start else None
            language = language or ("sh" if _is_shell(text) else "text")
            reason = mark[1] if mark else ""
            found.append(Block(page=page, line=start + 1, language=language, text=text, not_run=reason))
            start = None
    assert start is None, f"{page}: the block that starts in line {start} does not end"
    return found


def _is_shell(text: str) -> bool:
    words = text.split()
    return bool(words) and words[0] in PROGRAMS


def indented_commands(page: Path) -> list[str]:
    """Places of commands that are a block by their four spaces alone: nothing here looks at them."""
    found = []
    for number, line in enumerate(prose(page).splitlines(), start=1):
        match = re.match(r"(?: {4,}|\t)(?:\$ )?(?:[A-Z_]+=\S+ )*(\S+)", line)
        if match and (match[1] in PROGRAMS | {"git"} or re.match(r"\.venv[\w-]*/bin/", match[1])):
            found.append(f"{page.name}:{number}")
    return found


def block_commands(block: Block) -> Iterator[Command]:
    """Commands of a shell block."""
    for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
        yield from _commands(line.removeprefix("$ "), block.place, whole=True)


def _commands(line: str, place: str, *, whole: bool) -> Iterator[Command]:
    lexer = shlex.shlex(_without_comment(line), posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split, lexer.commenters = True, ""
    words = list[str]()
    for word in [*lexer, ";"]:
        if word and set(word) <= set("|&;"):
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words:
                yield Command(place=place, words=tuple(words), whole=whole)
            words = []
        else:
            words.append(word)


def _without_comment(line: str) -> str:
    """A `#` inside a word or quotes is none."""
    for match in re.finditer(r"(^|\s)#", line):
        before = line[: match.start()]
        if before.count("'") % 2 == before.count('"') % 2 == 0:
            return before
    return line


def written_files(page: Path) -> dict[str, Block]:
    """Blocks that are a file of the reader's own: their first line is its name, as `# mine.toml`."""
    named = ((re.match(r"# ([\w-]+\.(toml|py))\b", block.text), block) for block in blocks(page))
    return {match[1]: block for match, block in named if match}


def prose(page: Path) -> str:
    """The page without its blocks; what is left keeps its line numbers."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for block in blocks(page):
        for number in range(block.line - 1, block.line + block.text.count("\n") + 2):
            lines[number] = ""
    return "\n".join(lines)


def spoken(page: Path) -> list[tuple[str, str]]:
    """(place, code) of everything between backticks in the running text."""
    text, found = prose(page), []
    for match in re.finditer(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", text, re.DOTALL):
        line = text.count("\n", 0, match.start()) + 1
        found.append((f"{page.relative_to(ROOT)}:{line}", " ".join(match[2].split())))
    return found


def spoken_commands(page: Path) -> Iterator[Command]:
    """psgpo's, make's and scripts' commands in the running text."""
    start = re.compile(r"(\.venv/bin/)?(psgpo|make|python|accelerate|torchrun) ")
    for place, code in spoken(page):
        if start.match(code) and "\\" not in code:
            yield next(_commands(code, place, whole=False))


@cache
def root_command() -> Any:
    return typer.main.get_command(app)


@cache
def all_options() -> frozenset[str]:
    """Of every command and script."""

    def walk(command: Any) -> set[str]:
        names = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        return names.union(*map(walk, getattr(command, "commands", {}).values()))

    scripts = [
        script_options(path) for path in (*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "examples").glob("*.py"))
    ]
    return frozenset(walk(root_command()).union(*scripts))


def parse(arguments: list[str], *, whole: bool) -> str:
    """What psgpo's own parser says against a command; empty for nothing.

    Args:
        whole: required arguments must be there and values of the right type; else only names are looked at.
    """
    command = root_command()
    context = command.context_class(command, info_name="psgpo")
    words = list(arguments)
    while hasattr(command, "commands"):
        if not words or words[0].startswith("-"):
            known = {name for option in command.params for name in option.opts} | {"--help"}
            return "" if not whole or set(words) & known else "names no command"
        name = words.pop(0)
        if name not in command.commands:
            return f"no command {name!r} in psgpo"
        command = command.commands[name]
        context = command.context_class(command, info_name=name, parent=context)
    if whole:
        try:
            command.make_context(context.info_name, words, parent=context.parent)
        except Exception as error:  # typer brings its own click, whose errors have no public name
            return str(error.format_message()) if hasattr(error, "format_message") else str(error)
        return ""
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
    wrong = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    return f"no option {wrong[0]}" if wrong else ""


def script_options(script: Path) -> set[str]:
    """Options of a script, or of a folder that is run as one, read from the `add_argument` calls."""
    files = [script] if script.is_file() else sorted(script.glob("*.py"))
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    return set(re.findall(r"add_argument\(\s*\"(--[\w-]+)\"", text)) | {"--help"}


def links(page: Path) -> Iterator[tuple[str, str]]:
    """(place, target) of every link."""
    text = prose(page)
    for match in re.finditer(r"\]\(([^)\s]+)\)", text):
        yield f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}", match[1]


def anchors(page: Path) -> set[str]:
    """Those of a page's headings, as GitHub makes them, and its own."""
    found, seen = set(re.findall(r'<a id="([^"]+)"', page.read_text(encoding="utf-8"))), dict[str, int]()
    for heading in re.findall(r"^#{1,6} (.+?)\s*$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        seen[slug] = seen.get(slug, -1) + 1
        found.add(slug if not seen[slug] else f"{slug}-{seen[slug]}")
    return found


def run(command: Sequence[str], cwd: Path, *, source: Path | None = None, timeout: float = 1200) -> str:
    """What a command printed; an error with its last words where it failed.

    Args:
        source: folder of the package, where it is not this one.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(source or ROOT / "src"),
    }
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, (
        f"{' '.join(command)}\nended with {done.returncode}:\n{(done.stderr + done.stdout)[-2000:]}"
    )
    return done.stdout


def tiny(overrides: Sequence[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]
