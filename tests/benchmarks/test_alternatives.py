from alternatives import CHANGES, Alternative, alternatives
from psgpo.prm.above import Above, indent_of, tokens_of

ABOVE = ("def total(xs, start):", "    best = start", "    for item in xs:")


def changed(line: str, above: tuple[str, ...] = ABOVE) -> dict[str, set[str]]:
    found = alternatives(Above("add them", above), tokens_of(line), indent_of(line))
    return {change: {" ".join(a.tokens) for a in found if a.change == change} for change in CHANGES}


def test_each_kind_of_slip_is_offered() -> None:
    returned = changed("    return best")
    assert returned["return"] == {"best"}
    assert returned["returned"] == {"return best + 1", "return not best"}
    assert returned["variable"] == {"return xs", "return start", "return item"}
    assert changed("    best = 0")["start"] == {"best = 1", "best = - 0"}
    assert changed("    best = ''")["start"] == {"best = ' '"}
    compared = changed("    if item < 3:")
    assert compared["comparison"] == {"if item <= 3 :", "if item > 3 :", "if item >= 3 :"}
    assert compared["number"] == {"if item < 4 :", "if item < 2 :", "if item < 0 :", "if item < - 3 :"}
    assert compared["not"] == {"if not item < 3 :"}
    assert {"while item < 3 :", "elif item < 3 :"} <= compared["operator"]
    assert changed("    f(start, xs)")["arguments"] == {"f ( xs , start )"}
    assert changed("    best = len(xs)")["dropped-call"] == {"best = xs"}
    assert changed("    best = -item")["minus"] == {"best = item"}
    assert "best = xs [ item - 1 ]" in changed("    best = xs[item]")["off-by-one"]


def test_a_slip_is_mended_by_an_alternative() -> None:
    """The reference's own line is among the alternatives of its mutants."""
    pairs = (
        ("    return best + 1", "return best"),
        ("    best", "return best"),
        ("    best += xs", "best += item"),
        ("    best -= item", "best += item"),
        ("    if item >= best:", "if item > best :"),
        ("    if not item:", "if item :"),
        ("    best = min(best, item)", "best = max ( best , item )"),
        ("    for i in range(len(xs) - 1):", "for i in range ( len ( xs ) ) :"),
        ("    for i in range(1, 4):", "for i in range ( 0 , 4 ) :"),
        ("    return False", "return True"),
        ("    if item not in xs:", "if item in xs :"),
    )
    for wrong, right in pairs:
        assert any(right in texts for texts in changed(wrong).values()), wrong


def test_what_binds_a_name_keeps_it() -> None:
    assert changed("    best = start")["variable"] == {"best = xs", "best = item", "best = best"}
    assert changed("    for item in xs:")["variable"] == {
        "for item in start :",
        "for item in best :",
        "for item in item :",
    }
    assert not any(changed("def other(xs, start):").values())


def test_an_indentation_is_one_of_those_above_but_not_under_a_header() -> None:
    above = (*ABOVE, "        best += item")
    assert changed("        return best", above)["indentation"] == {"return best"}
    assert not changed("        best += item")["indentation"]
    found = alternatives(Above("", above), ("return", "best"), 8)
    assert Alternative(change="indentation", tokens=("return", "best"), indent=4) in found


def test_alternatives_are_distinct_and_never_the_line_itself() -> None:
    for text in (
        "    best = best + best - 1",
        "    x = a[i + 1:j - 1] + f(1, 1, 2)",
        "    return",
        "",
        "    if not x is not y:",
    ):
        found = alternatives(Above("", ABOVE), tokens_of(text), indent_of(text))
        lines = [(a.tokens, a.indent) for a in found]
        assert len(set(lines)) == len(lines)
        assert (tuple(tokens_of(text)), indent_of(text)) not in lines
        assert all(tokens for tokens, _ in lines)
