"""From a model's answer to the program that is graded, and the prompts."""

from __future__ import annotations

import ast
import gzip
import json
from collections import Counter
from typing import Any

import pytest
from benchmarks_world import data_file

from psgpo.execution import Sandbox
from psgpo.lines import extract_code
from psgpo.problems.benchmarks import load_benchmark
from psgpo.problems.programs import chat_prompt, completion_prompt, judged_program, plain_prompt, program_of
from psgpo.records import AssertTests, Call, CallTests, Problem, StdioCase, StdioTests

PROMPT = 'from typing import List\n\ndef f(xs: List[int]) -> int:\n    """Sum."""\n'
WHOLE = "def f(xs):\n    return sum(xs)\n"


def problem(**changes: Any) -> Problem:
    tests = CallTests(function="f", calls=(Call(args=([1, 2],), expected=3),))
    values: dict[str, Any] = {"id": "p", "prompt": PROMPT, "tests": tests, "starter_code": PROMPT}
    return Problem(**(values | {"preamble": "from typing import List\n"} | changes))


def result(program: str) -> Any:
    names: dict[str, Any] = {"__name__": "solution"}
    exec(compile(program, "<program>", "exec", dont_inherit=True), names)
    return names["f"]([1, 2])


FENCED = f"Sure! Here it is:\n\n```python\n{WHOLE}```\n\nIt adds them up."
ANSWERS = {
    "plain": WHOLE,
    "fenced": FENCED,
    "no language": FENCED.replace("python", ""),
    "tildes": FENCED.replace("```", "~~~"),
    "never closed": FENCED[: FENCED.rindex("```")],
    "windows": FENCED.replace("\n", "\r\n"),
    "in a list": "1. Like so:\n\n   ```python\n   def f(xs):\n       return sum(xs)\n   ```\n",
    "usage after it": f"{FENCED}\n```python\nprint(f([1]))\n```\n```\n3\n```\n",
    "wrong try before it": f"```python\ndef f(xs):\n    return 0\n```\nBetter:\n{FENCED}",
    "helper first": f"```python\ndef g():\n    pass\n```\n{FENCED}",
    "a name with f": f"{FENCED}\n```python\ndef fast(xs):\n    return f(xs)\n```",
    "output first": f"```\n3\n```\n{FENCED}",
    "fence in a docstring": 'def f(xs):\n    """Like\n```\nf([])\n```\n    """\n    return sum(xs)\n',
    "assigned": "```python\nf = sum\n```",
    "future import": f'"""Doc."""\n# hello\nfrom __future__ import annotations\n\n{WHOLE}',
    "future import in brackets": f"from __future__ import (\n    annotations,\n    division,\n)\n{WHOLE}",
    "uses the prompt's import": "def f(xs: List[int]):\n    return sum(xs)\n",
}


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("form", ["completion", "solution"])
def test_answers_that_hold_a_whole_program(kind: str, form: str) -> None:
    assert result(program_of(problem(), **{form: ANSWERS[kind]})) == 3


CONTINUATIONS = {
    "plain": "    return sum(xs)\n",
    "comment first": "    # add\n    return sum(xs)\n",
    "comment at the margin": "# add\n    return sum(xs)\n",
    "fenced": "The body is\n```python\n    return sum(xs)\n```\n",
    "closes the prompt's fence": "    return sum(xs)\n```\n\nThis adds:\n```python\nf([1])\n```\n",
    "more functions": "    return sum(xs)\n\ndef g():\n    return 1\n",
    "itself again after it": "    return 0\n\ndef f(xs):\n    return sum(xs)\n",
    "no newline": "    return sum(xs)",
    "docstring with a fence": '    """\n```\n    """\n    return sum(xs)\n',
}


@pytest.mark.parametrize("kind", CONTINUATIONS)
def test_completions_that_continue_the_prompt(kind: str) -> None:
    program = program_of(problem(), completion=CONTINUATIONS[kind])
    assert result(program) == 3
    assert program.startswith(PROMPT)


def test_a_plain_completion_is_appended_as_it_is() -> None:
    assert program_of(problem(), completion="    return 1 +\n\n\t#") == PROMPT + "    return 1 +\n\n\t#"


@pytest.mark.parametrize("kind", ["plain", "fenced", "no language", "tildes", "never closed", "windows"])
def test_one_block_is_the_code_that_line_labels_see(kind: str) -> None:
    assert program_of(problem(preamble=""), solution=ANSWERS[kind]) == extract_code(ANSWERS[kind])


def test_text_that_is_no_program_stays() -> None:
    plain = problem(starter_code="", preamble="", prompt="Add.")
    for text in ("", "I cannot do that.", "def f(:\n", "\x00", "``", '"""```\n', "# ```\nx"):
        assert program_of(plain, solution=text) == text


def test_exactly_one_form() -> None:
    for forms in ({}, {"completion": "", "solution": ""}):
        with pytest.raises(ValueError, match="either"):
            program_of(problem(), **forms)


def test_standard_input_takes_the_last_python_block() -> None:
    tests = StdioTests(cases=(StdioCase(stdin="", expected="1\n"),))
    stdio = problem(tests=tests, starter_code="", preamble="")
    answer = "First\n```python\nprint(0)\n```\nthen\n```python\nprint(1)\n```\nwhich prints\n```\n1\n```\n"
    assert program_of(stdio, solution=answer) == "print(1)\n"
    assert program_of(stdio, completion=answer) == "print(1)\n"


def test_a_method_asked_for_and_a_function_given() -> None:
    tests = CallTests(function="Solution.f", calls=(Call(args=([1, 2],), expected=3),))
    method = problem(
        tests=tests, prompt="Add.", starter_code="class Solution:\n    def f(self, xs: List[int]):\n        "
    )
    for program in (
        program_of(method, solution=WHOLE),
        program_of(method, completion="return sum(xs)\n"),
        program_of(method, completion=f"```python\n{method.starter_code}return sum(xs)\n```"),
    ):
        names: dict[str, Any] = {}
        exec(program, names)
        assert names["Solution"]().f([1, 2]) == 3


def test_preamble_stands_after_future_imports_only_at_the_head() -> None:
    program = program_of(problem(), solution='x = """\nfrom __future__ import annotations\n"""\n' + WHOLE)
    assert program.startswith("from typing import List\nx = ")


@pytest.mark.parametrize(
    "piece", ["```", "```\n", '"""', "\n", " ", "# ", "def f", "~~~\n", "a\n```python\n", "'", "\t\n"]
)
def test_hostile_text_costs_a_scan(piece: str) -> None:
    text = piece * (400_000 // len(piece))
    for form in ("completion", "solution"):
        assert isinstance(program_of(problem(), **{form: text}), str)
        assert isinstance(program_of(problem(), **{form: "from __future__ import x\n" + text}), str)


def test_prompts_of_code() -> None:
    assert completion_prompt(problem()) == PROMPT
    assert f"```python\n{PROMPT.rstrip()}\n```" in chat_prompt(problem())


def test_prompts_of_words() -> None:
    words = problem(prompt='Say """hi\\n""".', starter_code="", preamble="")
    assert ast.literal_eval(completion_prompt(words)) == "\nSay '''hi\\n'''.\n"
    assert chat_prompt(words).startswith(words.prompt)
    method = problem(prompt="Add.", starter_code="class Solution:\n    def f(self, xs):\n        ")
    assert completion_prompt(method) == '"""\nAdd.\n"""\n' + method.starter_code
    assert "```python\nclass Solution:\n    def f(self, xs):\n```" in chat_prompt(method)
    stdio = problem(tests=StdioTests(cases=(StdioCase(stdin="", expected=""),)), starter_code="", prompt="Echo.")
    assert "standard input" in chat_prompt(stdio)


def test_prompts_of_mbpp() -> None:
    tests = AssertTests(entry_point="f", checks=("assert f(1) == 1", "assert f(2) == 2"))
    mbpp = problem(prompt="You are ...", tests=tests, starter_code="", preamble="", metadata={"text": "Identity."})
    assert plain_prompt(mbpp) == "Identity.\nassert f(1) == 1\nassert f(2) == 2"
    assert completion_prompt(mbpp) == f'"""\n{plain_prompt(mbpp)}\n"""\n'
    assert chat_prompt(mbpp).startswith("You are ...\n")


def test_recorded_verdicts_of_whole_programs() -> None:
    """A tenth of 1,640 programs of a model, with the verdicts that another checker gave them."""
    problems = {p.id: p for p in load_benchmark("humaneval", data_file("HumanEval.jsonl.gz"))}
    with gzip.open(data_file("humaneval_codellama34b.jsonl.gz"), "rt") as stream:
        rows = [json.loads(line) for line in stream][::10]
    items = [(problems[row["task_id"]], row["program"]) for row in rows]
    with Sandbox(workers=1, timeout=10.0, memory_mb=512) as sandbox:
        verdicts = sandbox.grade([(program_of(task, solution=text), task.tests) for task, text in items])
    found = Counter((row["recorded"], verdict.passed) for row, verdict in zip(rows, verdicts, strict=True))
    assert found.keys() == {("Fail", False), ("Pass", True)}
    assert len(verdicts) == 164


def test_what_is_judged_for_the_code_of_a_response() -> None:
    body = "    return sum(xs)\n"
    assert judged_program(problem(), f"{body}\nprint(f([1]))\ndef g(:") == PROMPT + body + "\n"
    assert judged_program(problem(), WHOLE) == f"from typing import List\n{WHOLE}"
    helper = f"def g(xs):\n    return 0\n\n{WHOLE}"
    assert judged_program(problem(), helper) == f"from typing import List\n{helper}"
    bare = problem(starter_code="", preamble="")
    assert judged_program(bare, body) == body
