"""What the documents say can be done can be done: commands, options, recipes, code, files, links.

Nothing is run here; test_docs_run.py does that.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from docs_scripts import SCRIPTS, script_of
from docs_world import (
    GENERATED,
    MARK,
    OTHERS,
    PAGES,
    ROOT,
    SHELL,
    Block,
    Command,
    all_options,
    anchors,
    block_commands,
    blocks,
    indented_commands,
    links,
    parse,
    script_options,
    spoken,
    spoken_commands,
    written_files,
)

from psgpo.config import load_recipe, parse_recipe
from psgpo.config.base import Section
from psgpo.config.recipe import Recipe
from psgpo.errors import UserError
from script_world import refused

BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [command for block in BLOCKS if block.language in SHELL for command in block_commands(block)]
SPOKEN = [command for page in PAGES for command in spoken_commands(page)]
LANGUAGES = SHELL | {"text", "toml", "python", "json", "jsonl", "bibtex", "yaml"}
ELSEWHERE = {"vllm", "verl", "trl", "ray", "datasets"}
"""Packages that examples import and that psgpo does not need."""
FOREIGN = {"--mixed_precision", "--use_fsdp", "--use_deepspeed", "--no-enable-chunked-prefill"}
"""Options of accelerate and of vLLM's server."""
FRAGMENT: dict[str, Any] = {
    "name": "fragment",
    "out": "runs/fragment",
    "problems": {"kind": "opchain"},
    "prm": {"sign": {"target": "sign"}},
    "arms": {"baseline": {}},
}
"""What a recipe's part that a page shows is put into."""


def of(*languages: str) -> list[Any]:
    return [pytest.param(block, id=block.place) for block in BLOCKS if block.language in languages]


def test_there_is_something_to_check() -> None:
    assert len(PAGES) > 30
    assert len(COMMANDS) > 50
    assert len(SPOKEN) > 60


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_languages_and_marks_are_known(page: Path) -> None:
    found = blocks(page)
    assert {block.language for block in found} <= LANGUAGES
    marks = len(MARK.findall(page.read_text(encoding="utf-8")))
    assert marks == sum(bool(block.not_run) for block in found), "a 'not run' comment is not directly above a block"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent != GENERATED], ids=lambda page: str(page.relative_to(ROOT))
)
def test_commands_stand_between_fences(page: Path) -> None:
    assert not indented_commands(page), "put these commands between ``` lines: what is only indented is not tested"


def test_an_indented_command_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Text:\n\n    psgpo doctor\n    x = 1\n\n```\n    make test\n```\n\n    A=1 .venv/bin/python x.py\n"
        "make it so\n\n    $ git status\n    gitk\n",
        encoding="utf-8",
    )
    assert indented_commands(page) == ["page.md:3", "page.md:10", "page.md:13"]


@pytest.mark.parametrize("command", [*COMMANDS, *SPOKEN], ids=lambda command: f"{command.place}-{command.words[0]}")
def test_commands_exist_as_they_are_written(command: Command) -> None:
    fault = fault_of(command)
    assert not fault, f"{command}\n{fault}"


def fault_of(command: Command) -> str:
    arguments = command.psgpo
    if arguments is not None:
        return parse(arguments, whole=command.whole) or _recipe_fault(arguments)
    program, *words = command.words
    if program == "make":
        targets = re.findall(r"^([\w./$()-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        targets = [target.replace("$(VENV)", ".venv").replace("$(VLLM)", ".venv-vllm") for target in targets]
        return next((f"no target {word}" for word in words if "=" not in word and word not in targets), "")
    if Path(program).name.startswith("python"):
        own = words[:1] and words[0] in written_files(ROOT / command.place.partition(":")[0])
        return "" if own else _script_fault(words, whole=command.whole)
    if script_of(command):
        return _script_fault(words[words.index(script_of(command)) :], whole=command.whole)
    return "" if program in OTHERS else f"{program} is no program that the documents may use; see docs_world.OTHERS"


def _script_fault(words: list[str], *, whole: bool) -> str:
    if words[0] == "-m" and words[1].startswith("psgpo."):
        return refused(words)
    if words[0] in ("-m", "-c"):
        return ""
    script = ROOT / words[0]
    if not (script.is_file() or (script / "__main__.py").is_file()):
        return f"no file {words[0]}"
    if whole:
        return refused(words)
    known = script_options(script)
    return next((f"no option {word}" for word in words if word.startswith("--") and word not in known), "")


def test_every_script_that_is_named_has_a_test() -> None:
    make = re.findall(r"python (benchmarks/\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    followed = [c for block in BLOCKS if block.language in SHELL and not block.not_run for c in block_commands(block)]
    wanted = {*make, *map(script_of, [*followed, *SPOKEN])} - {""}
    assert wanted <= set(SCRIPTS), "say in docs_scripts.SCRIPTS which test runs them"


@pytest.mark.parametrize(("script", "test"), SCRIPTS.items())
def test_the_test_that_is_named_is_there_and_about_the_script(script: str, test: str) -> None:
    name, stem = re.escape(Path(script).name), Path(script).stem
    text = (ROOT / test).read_text(encoding="utf-8")
    assert (ROOT / script).exists()
    assert re.search(rf"(?<!\w){name}(?!\w)|^(from|import) {stem}\b", text, re.MULTILINE), (
        f"{test}: not a word of {name}"
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_say_what_they_take_and_refuse_the_rest(script: str) -> None:
    assert not refused([script, "--help"])
    assert "--no-such-option" in refused([script, "--no-such-option"]) or "required" in refused([script])


def _recipe_fault(arguments: list[str]) -> str:
    """Recipes that are ours load with the overrides; of others, the overridden keys exist."""
    overrides = [value for flag, value in pairwise(arguments) if flag == "--set"]
    recipe = next((word for word in arguments if word.startswith("recipes/")), None)
    try:
        if recipe is not None and "*" not in recipe:
            load_recipe(ROOT / recipe, overrides)
    except UserError as error:
        return str(error)
    keys = (override.partition("=")[0] for override in overrides)
    return next((f"no key {key} in a recipe" for key in keys if not key_exists(key)), "")


def key_exists(key: str, section: type[Section] = Recipe) -> bool:
    name, _, rest = key.partition(".")
    if name not in section.model_fields:
        return False
    if not rest:
        return True
    annotation = str(section.model_fields[name].annotation)
    inner = [one for one in all_sections() if re.search(rf"\b{one.__name__}\b", annotation)]
    if annotation.startswith("dict["):
        rest = rest.partition(".")[2]  # a name of the user's choice
    return not inner or not rest or any(key_exists(rest, one) for one in inner)


def all_sections(root: type[Section] = Section) -> list[type[Section]]:
    return [found for one in root.__subclasses__() for found in [one, *all_sections(one)]]


def test_a_key_that_is_none_is_found() -> None:
    assert key_exists("rl.steps")
    assert key_exists("prm.mine.target")
    assert key_exists("problems.data.mbpp")
    assert not key_exists("rl.stepz")
    assert not key_exists("prm.mine.targets")


@pytest.mark.parametrize("block", of("toml"))
def test_recipes_load(block: Block) -> None:
    if block.not_run:
        pytest.skip(block.not_run)
    table = tomllib.loads(block.text)
    if "arms" in table and "name" in table:
        parse_recipe(table, origin=block.place)
        return
    whole = FRAGMENT | table
    whole["arms"] = FRAGMENT["arms"] | table.get("arms", {})
    whole["prm"] = FRAGMENT["prm"] | table.get("prm", {})
    if "path" in whole.get("model", {}):
        whole["sft"] = {"optimizer": "adamw"} | whole.get("sft", {})
    if "path" in whole.get("critic", {}):
        whole["model"] = {"path": "models/policy"} | whole.get("model", {})
    parse_recipe(whole, origin=block.place)


@pytest.mark.parametrize("block", of("json", "jsonl"))
def test_json_parses(block: Block) -> None:
    try:
        json.loads(block.text)
    except json.JSONDecodeError:
        for line in block.text.splitlines():
            json.loads(line)


@pytest.mark.parametrize("block", of("python"))
def test_code_compiles_and_what_it_imports_is_there(block: Block) -> None:
    compile(block.text, block.place, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name.partition(".")[0] in ELSEWHERE or importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] not in ELSEWHERE:
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for place, target in links(page):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        goal = (page.parent / file).resolve() if file else page
        if not goal.exists() or (anchor and anchor not in anchors(goal)):
            broken.append(f"{place}: {target}")
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    ours = re.compile(r"(src|docs|tests|benchmarks|recipes|examples)/")
    named = [(place, code) for place, code in spoken(page) if ours.match(code)]
    missing = [f"{place}: {code}" for place, code in named if not _there(code.split()[0])]
    assert not missing


def _there(name: str) -> bool:
    """Braces and stars as a shell reads them."""
    options = re.match(r"(.*)\{(.*)\}(.*)", name)
    if options:
        return all(_there(options[1] + one + options[3]) for one in options[2].split(","))
    return any(ROOT.glob(name.split("#")[0].rstrip("/")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_that_are_named_exist(page: Path) -> None:
    named = [(place, code) for place, code in spoken(page) if re.match(r"--[a-z]", code)]
    known = all_options() | FOREIGN
    missing = [f"{place}: {code}" for place, code in named if re.split(r"[ =]", code)[0] not in known]
    assert not missing
