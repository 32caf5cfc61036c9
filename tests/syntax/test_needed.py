"""Programs that pass but do again what their beginning did wrong."""

from __future__ import annotations

from psgpo.syntax import reductions, unused_lines

AGAIN = """def solve(x):
    x = sorted(x, reverse=True)
    x = x
    out = []
    for v in x:
        out.append(v)
    x = sorted(out)
    return x
"""


def test_every_statement_of_the_lines_is_taken_out_once() -> None:
    found = reductions(AGAIN, range(1, 7), ["solve"])
    assert found is not None
    assert [sum("pass" in line for line in text.split("\n")) for text in found] == [1, 1]
    assert found[0].split("\n")[1] == "    pass"
    assert found[1].split("\n")[3:6] == ["    out = []", "    pass", "    x = sorted(out)"]


def test_only_the_lines_asked_about() -> None:
    assert reductions(AGAIN, range(3, 5), ["solve"]) == []
    found = reductions(AGAIN, range(5, 6), ["solve"])
    assert found == [], "the loop goes on behind line 5; its header cannot be taken out alone"


def test_of_an_open_loop_the_whole_statements_inside_are_taken_out() -> None:
    program = "def solve(x):\n    t = 0\n    for v in x:\n        v = abs(v)\n        t = t + v\n    return t\n"
    found = reductions(program, range(1, 5), ["solve"])
    assert found == [program.replace("v = abs(v)", "pass")]


def test_a_result_that_is_thrown_away_is_found_without_running() -> None:
    lines = [
        "def solve(x):",
        "    out = 1",
        "    for v in x:",
        "        out += v",
        "    out = sum(x)",
        "    return out",
        "",
    ]
    program = "\n".join(lines)
    assert unused_lines(program, ["solve"]) == {3, 4}
    assert reductions(program, range(1, 5), ["solve"]) is None
    assert reductions(program, range(1, 5), ["solve"], exempt={3, 4}) is not None


def test_what_does_not_parse_is_not_questioned() -> None:
    assert reductions("def\napple\n", range(1, 3), ["solve"]) == []
    assert unused_lines("def\napple\n", ["solve"]) == set()


def test_several_statements_in_a_line_and_clauses_stay() -> None:
    clauses = "    if n > 2:\n        n = 2\n    elif n < 0:\n        n = 0\n"
    program = f"def f(n):\n    n = n + 1; n = n - 1\n{clauses}    return n\n"
    found = reductions(program, range(1, 7), ["f"])
    assert found is not None
    assert [text.split("\n")[2] for text in found] == ["    pass"]
