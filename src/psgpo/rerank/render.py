"""`summary.json` of both commands as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psgpo.rerank.curves import ORACLE, RANDOM

Json = Mapping[str, Any]
BEAM_BELOW = (
    "beam: only the last column is a run of its budget; a smaller --budget is shared among the lines otherwise."
)
FOOT = "minus: paired, at the end of the row. of oracle: share of what a perfect choice gains over a random one."


def render_samples(summary: Json) -> str:
    """pass@1 of best-of-n by method, differences at the largest n."""
    data, methods = summary["data"], summary["methods"]
    last = methods[RANDOM]["curve"][-1]["n"]
    shown = [n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n < last] + [last]
    head = (
        f"{data['responses']} responses to {data['problems']} problems ({data['fewest']} to {data['most']} each), "
        f"{data['tokens_per_response']:.1f} tokens each. pass@1 of the one that is chosen among n:"
    )
    notes = _left_out(summary)
    if data["fewest"] < data["most"]:
        fewest = f"the fewest responses of a problem ({data['fewest_of']})"
        notes.append(f"n ends at {last}, {fewest}; others have up to {data['most']}")
    tokens = [f"{methods[RANDOM]['curve'][n - 1]['tokens']:.0f}" for n in shown]
    columns = [f"n={n}" for n in shown]
    return "\n".join(
        [head, "", *table(methods, columns, [n - 1 for n in shown]), _row("tokens", tokens), "", FOOT, *notes, ""]
    )


def render_search(summary: Json) -> str:
    """pass@1 at budgets of tokens, by method, differences at the largest."""
    data, methods = summary["data"], summary["methods"]
    budgets = [point["tokens"] for point in methods[RANDOM]["curve"]]
    head = (
        f"{data['problems']} problems, at most {data['budget']} sampled tokens for each. pass@1 of the program that is "
        "chosen when so many are spent:"
    )
    costs = [
        f"{name}: {cost['tokens']:.1f} tokens and {cost['programs']:.2f} finished programs per problem, "
        f"{cost['scored']:.1f} prefixes scored"
        for name, cost in data["cost"].items()
    ]
    costs += [
        f"{name}: {unread['programs']} finished programs and {unread['prefixes']} prefixes were too long for the PRM; "
        "they have no score and come last"
        for name, unread in data["unread"].items()
        if any(unread.values())
    ]
    notes = ([BEAM_BELOW] if "beam" in methods else []) + _left_out(summary)
    columns = [str(budget) for budget in budgets]
    return "\n".join([head, "", *table(methods, columns, list(range(len(budgets)))), "", FOOT, *costs, *notes, ""])


def _left_out(summary: Json) -> list[str]:
    return [f"majority is left out: {summary['majority']}"] if summary["majority"] else []


def table(methods: Json, columns: Sequence[str], points: Sequence[int]) -> list[str]:
    """A row per method, best at the end first; random and oracle frame them."""
    middle = sorted(
        (name for name in methods if name not in (RANDOM, ORACLE)), key=lambda name: -_last(methods[name])["value"]
    )
    references = list(dict.fromkeys(other for name in middle for other in methods[name]["minus"]))
    head = _row("", [*columns, "95 %"], wide=1) + "".join(f"  {f'minus {name}':>26}" for name in references)
    rows = [head + f"{'of oracle':>12}"]
    for name in (RANDOM, *middle, ORACLE):
        method = methods[name]
        curve = [f"{100 * method['curve'][point]['value']:.1f}" for point in points]
        row = _row(name, [*curve, _interval(_last(method))], wide=1)
        for reference in references:
            found = None if name == ORACLE else method["minus"].get(reference)
            row += f"  {'-' if found is None else _difference(found):>26}"
        closed = method["closed"]["value"]
        rows.append(row + f"{'-' if closed is None else f'{100 * closed:.0f} %':>12}")
    return rows


def _row(name: str, cells: Sequence[str], wide: int = 0) -> str:
    """The last `wide` cells hold intervals."""
    narrow = len(cells) - wide
    return f"{name:<20}" + "".join(f"{cell:>{8 if i < narrow else 16}}" for i, cell in enumerate(cells))


def _last(method: Json) -> Json:
    point: Json = method["curve"][-1]
    return point


def _interval(point: Json) -> str:
    return f"{100 * point['low']:.1f} to {100 * point['high']:.1f}"


def _difference(found: Json) -> str:
    return f"{100 * found['value']:+.1f} ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"
