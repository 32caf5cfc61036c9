import numpy as np

from psgpo.prm.above import Above, read_task, shape, tokens_of
from psgpo.prm.ngram_features import BUCKETS, features, line_features

TASK = "Write a function to add numbers.\nassert summed([1, 2], 'x') == (3, True)"
LINES = (
    "def summed(xs, name):",
    "    total = 0",
    "    for item in xs:",
    "        total += item",
    "    return total",
)


def shared(left: np.ndarray, right: np.ndarray) -> float:
    return len(np.intersect1d(left, right)) / min(len(set(left)), len(set(right)))


def test_the_task_tells_types_of_arguments_and_result() -> None:
    task = read_task(TASK)
    assert task.argument_types == {0: "list[int]", 1: "str"}
    assert task.result_type == "tuple[int]"
    assert {"write", "numbers", "3"} <= task.words
    docstring = read_task('def f(x):\n    """Half.\n    >>> f([[1.5]])\n    -2\n    """')
    assert docstring.argument_types == {0: "list[list[float]]"}
    assert read_task("Say hello.").result_type == "?"
    assert read_task("assert (((").argument_types == {}


def test_names_have_roles() -> None:
    above = Above(TASK, LINES[:4])
    assert above.role == {"summed": "F", "xs": "Plist[int]", "name": "Pstr", "total": "=0$", "item": "for1Plist[int]"}
    assert above.variables == ["xs", "name", "total", "item"]
    assert above.seen["total"] == [1, 3]
    assert above.last["total"] == "^_+="
    assert above.header(8) == tokens_of(LINES[2])
    assert above.header(4) == []


def test_shape_numbers_names_and_keeps_known_ones() -> None:
    assert shape(tokens_of("x = max(x, y, 'a')")) == ["v0", "=", "vmax1", "(", "v0", ",", "v2", ",", "S", ")"]


def test_features_are_the_same_in_every_run_and_in_range() -> None:
    found = features(TASK, LINES)
    assert np.array_equal(found, features(TASK, LINES))
    assert found.min() >= 0
    assert found.max() < BUCKETS
    assert len(features("", [""])) > 0


def test_other_names_share_more_than_another_variable_does() -> None:
    """A renamed program keeps shape, roles and links; a line that returns another variable does not."""
    renamed = [line.replace("total", "gesamt").replace("item", "zahl") for line in LINES]
    wrong = [*LINES[:4], "    return name"]
    base = features(TASK, LINES)
    assert shared(base, features(TASK, renamed)) > shared(base, features(TASK, wrong))


def test_indentation_is_seen() -> None:
    above = Above(TASK, LINES[:4])
    assert not np.array_equal(
        line_features(above, ["return", "total"], 4), line_features(above, ["return", "total"], 8)
    )
