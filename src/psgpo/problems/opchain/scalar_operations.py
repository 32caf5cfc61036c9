"""Operations that make, change or take apart integers and strings."""

from __future__ import annotations

from typing import Any

from psgpo.problems.opchain.operation import Operation


def _not_empty(state: Any, _: int) -> bool:
    return len(state) > 0


def _accumulate(start: str, step: str, over: str = "x", name: str = "v") -> str:
    return f"t = {start}\nfor {name} in {over}:\n    {step}\nx = t"


def _text(step: str) -> str:
    return f"out = ''\nfor c in x:\n    {step}\nx = out"


def _text_if(condition: str) -> str:
    return f"out = ''\nfor c in x:\n    if {condition}:\n        out = out + c\nx = out"


def _choose(condition: str, then: str, otherwise: str) -> tuple[str, ...]:
    return (
        f"if {condition}:\n    x = {then}\nelse:\n    x = {otherwise}",
        f"x = {then} if {condition} else {otherwise}",
    )


REDUCTIONS = (
    Operation(
        name="total",
        takes="list",
        gives="int",
        apply=lambda x, _: sum(x),
        phrasings=("take the sum", "add all numbers up", "sum all numbers"),
        correct=("x = sum(x)", _accumulate("0", "t += v")),
        wrong=(("x = sum(x[1:])", _accumulate("0", "t += v", "x[1:]")), ("x = len(x)", _accumulate("0", "t += 1"))),
        weight=0.25,
    ),
    Operation(
        name="largest",
        takes="list",
        gives="int",
        apply=lambda x, _: max(x),
        phrasings=("take the largest", "keep only the largest number", "find the largest number"),
        correct=("x = max(x)", _accumulate("x[0]", "t = max(t, v)")),
        wrong=(
            ("x = min(x)", _accumulate("x[0]", "t = min(t, v)")),
            ("x = x[-1]", _accumulate("x[0]", "t = v")),
        ),
        defined=_not_empty,
        weight=0.25,
    ),
    Operation(
        name="count_above",
        takes="list",
        gives="int",
        apply=lambda x, k: sum(v > k for v in x),
        phrasings=("count numbers above K", "count numbers greater than K", "count how many are above K"),
        correct=("x = sum(1 for v in x if v > K)", "t = 0\nfor v in x:\n    if v > K:\n        t += 1\nx = t"),
        wrong=(
            ("x = sum(1 for v in x if v >= K)", "t = 0\nfor v in x:\n    if v >= K:\n        t += 1\nx = t"),
            ("x = sum(v for v in x if v > K)", "t = 0\nfor v in x:\n    if v > K:\n        t += v\nx = t"),
        ),
        parameters=tuple(range(2, 10)),
        weight=0.25,
    ),
    Operation(
        name="span",
        takes="list",
        gives="int",
        apply=lambda x, _: max(x) - min(x),
        phrasings=("take largest minus smallest", "subtract the smallest from the largest", "find the span"),
        correct=("x = max(x) - min(x)", "t = sorted(x)\nx = t[-1] - t[0]"),
        wrong=(
            ("x = min(x) - max(x)", "t = sorted(x)\nx = t[0] - t[-1]"),
            ("x = max(x) + min(x)", "t = sorted(x)\nx = t[-1] + t[0]"),
        ),
        defined=_not_empty,
        weight=0.25,
    ),
)

INTEGERS = (
    Operation(
        name="int_add",
        takes="int",
        gives="int",
        apply=lambda x, k: x + k,
        phrasings=("add K", "add K to it", "increase it by K"),
        correct=("x = x + K", "x += K"),
        wrong=(("x = x - K", "x -= K"), ("x = x + KM", "x += KM")),
        parameters=tuple(range(2, 10)),
    ),
    Operation(
        name="int_multiply",
        takes="int",
        gives="int",
        apply=lambda x, k: x * k,
        phrasings=("multiply by K", "multiply it by K", "scale it by K"),
        correct=("x = x * K", "x *= K"),
        wrong=(("x = x + K", "x += K"), ("x = x * KP", "x *= KP")),
        parameters=tuple(range(2, 6)),
    ),
    Operation(
        name="digit_sum",
        takes="int",
        gives="int",
        apply=lambda x, _: sum(map(int, str(abs(x)))),
        phrasings=("take the sum of its digits", "add its digits up", "sum its digits"),
        correct=("x = sum(int(c) for c in str(abs(x)))", _accumulate("0", "t += int(c)", "str(abs(x))", "c")),
        wrong=(
            ("x = sum(1 for c in str(abs(x)))", _accumulate("0", "t += 1", "str(abs(x))", "c")),
            ("x = max(int(c) for c in str(abs(x)))", _accumulate("0", "t = max(t, int(c))", "str(abs(x))", "c")),
        ),
        weight=0.7,
    ),
    Operation(
        name="halve_or_triple",
        takes="int",
        gives="int",
        apply=lambda x, _: x // 2 if x % 2 == 0 else 3 * x + 1,
        phrasings=(
            "halve it if even else triple it and add 1",
            "if even halve it else triple it and add 1",
            "if odd triple it and add 1 else halve it",
        ),
        correct=_choose("x % 2 == 0", "x // 2", "3 * x + 1"),
        wrong=(_choose("x % 2 == 0", "x // 2", "3 * x - 1"), _choose("x % 2 == 1", "x // 2", "3 * x + 1")),
    ),
    Operation(
        name="int_to_text",
        takes="int",
        gives="str",
        apply=lambda x, _: str(x),
        phrasings=("write it as text", "turn it into text", "make it text"),
        correct=("x = str(x)", "t = str(x)\nx = t"),
        wrong=(("x = str(x + 1)", "t = str(x + 1)\nx = t"), ("x = str(x)[::-1]", "t = str(x)\nx = t[::-1]")),
        last_only=True,
    ),
    Operation(
        name="int_to_digits",
        takes="int",
        gives="list",
        apply=lambda x, _: [int(c) for c in str(abs(x))],
        phrasings=("list its digits", "turn it into a list of its digits", "make a list of its digits"),
        correct=(
            "x = [int(c) for c in str(abs(x))]",
            "out = []\nfor c in str(abs(x)):\n    out.append(int(c))\nx = out",
        ),
        wrong=(
            (
                "x = [ord(c) for c in str(abs(x))]",
                "out = []\nfor c in str(abs(x)):\n    out.append(ord(c))\nx = out",
            ),
            (
                "x = [int(c) for c in str(abs(x))[1:]]",
                "out = []\nfor c in str(abs(x))[1:]:\n    out.append(int(c))\nx = out",
            ),
        ),
        weight=1.5,
    ),
)

STRINGS = (
    Operation(
        name="letters",
        takes="list",
        gives="str",
        apply=lambda x, _: "".join(chr(97 + v % 26) for v in x),
        phrasings=(
            "turn each into a letter with 0 as a",
            "make text with letter a for 0 modulo 26",
            "write each as a letter with 0 as a",
        ),
        correct=("x = ''.join(chr(97 + v % 26) for v in x)", _text("out = out + chr(97 + c % 26)")),
        wrong=(
            ("x = ''.join(chr(96 + v % 26) for v in x)", _text("out = out + chr(96 + c % 26)")),
            ("x = ''.join(chr(97 + v % 25) for v in x)", _text("out = out + chr(97 + c % 25)")),
        ),
        weight=1.0,
    ),
    Operation(
        name="letter_codes",
        takes="str",
        gives="list",
        apply=lambda x, _: [ord(c) - 97 for c in x],
        phrasings=(
            "turn each letter into a number with a as 0",
            "list the letter numbers with a as 0",
            "make a list of letter numbers with a as 0",
        ),
        correct=("x = [ord(c) - 97 for c in x]", "out = []\nfor c in x:\n    out.append(ord(c) - 97)\nx = out"),
        wrong=(
            ("x = [ord(c) - 96 for c in x]", "out = []\nfor c in x:\n    out.append(ord(c) - 96)\nx = out"),
            ("x = [97 - ord(c) for c in x]", "out = []\nfor c in x:\n    out.append(97 - ord(c))\nx = out"),
        ),
        weight=2.0,
    ),
    Operation(
        name="reverse_text",
        takes="str",
        gives="str",
        apply=lambda x, _: x[::-1],
        phrasings=("reverse the text", "read the text in reverse", "reverse the letters"),
        correct=("x = x[::-1]", _text("out = c + out")),
        wrong=(
            ("x = x[:0:-1]", "out = ''\nfor c in x[1:]:\n    out = c + out\nx = out"),
            ("x = ''.join(sorted(x))[::-1]", "out = ''\nfor c in sorted(x):\n    out = c + out\nx = out"),
        ),
    ),
    Operation(
        name="sort_text",
        takes="str",
        gives="str",
        apply=lambda x, _: "".join(sorted(x)),
        phrasings=("sort the letters", "sort the text", "put the letters in increasing order"),
        correct=("x = ''.join(sorted(x))", "t = sorted(x)\nx = ''.join(t)"),
        wrong=(
            ("x = ''.join(sorted(x, reverse=True))", "t = sorted(x, reverse=True)\nx = ''.join(t)"),
            ("x = ''.join(sorted(set(x)))", "t = sorted(set(x))\nx = ''.join(t)"),
        ),
    ),
    Operation(
        name="double_letters",
        takes="str",
        gives="str",
        apply=lambda x, _: "".join(c + c for c in x),
        phrasings=("write each letter twice", "double each letter", "double every letter"),
        correct=("x = ''.join(c + c for c in x)", _text("out = out + c + c")),
        wrong=(("x = x + x", "out = ''\nfor c in x:\n    out = out + c\nx = out + out"), (_text("out = c + c + out"),)),
    ),
    Operation(
        name="drop_vowels",
        takes="str",
        gives="str",
        apply=lambda x, _: "".join(c for c in x if c not in "aeiou"),
        phrasings=("drop the vowels", "remove all vowels", "keep all but the vowels"),
        correct=("x = ''.join(c for c in x if c not in 'aeiou')", _text_if("c not in 'aeiou'")),
        wrong=(
            ("x = ''.join(c for c in x if c in 'aeiou')", _text_if("c in 'aeiou'")),
            ("x = ''.join(c for c in x if c not in 'aei')", _text_if("c not in 'aei'")),
        ),
    ),
    Operation(
        name="count_letters",
        takes="str",
        gives="int",
        apply=lambda x, _: len(set(x)),
        phrasings=(
            "count different letters",
            "count how many letters are different",
            "find how many different letters",
        ),
        correct=("x = len(set(x))", "t = set(x)\nx = len(t)"),
        wrong=(
            ("x = len(x)", "t = list(x)\nx = len(t)"),
            ("x = len(x) - len(set(x))", "t = set(x)\nx = len(x) - len(t)"),
        ),
        weight=0.25,
    ),
)

SCALAR_OPERATIONS = REDUCTIONS + INTEGERS + STRINGS
