"""Which MBPP+ tasks want tuples, sets or complex numbers where the data file, being JSON, holds lists and strings.

The groups of task numbers are facts of EvalPlus's data format.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Arguments = list[Any]


def _tuples(values: Any) -> list[Any]:
    """The same list with every member a tuple."""
    return [tuple(value) for value in values]


def _deep(value: Any) -> Any:
    return tuple(map(_deep, value)) if isinstance(value, list) else value


def _set(value: Any) -> Any:
    """An empty list stands for an empty dict, as `{}` does in the task's own tests."""
    return set(value) if isinstance(value, list) and value else {}


def _first(convert: Callable[[Any], Any]) -> Callable[[Arguments], Arguments]:
    """Convert the first argument only."""
    return lambda arguments: [convert(arguments[0]), *arguments[1:]]


def _every(convert: Callable[[Any], Any]) -> Callable[[Arguments], Arguments]:
    return lambda arguments: [convert(argument) for argument in arguments]


_GROUPS: tuple[tuple[Callable[[Arguments], Arguments], tuple[int, ...]], ...] = (
    (
        _every(tuple),
        (2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809),
    ),
    (_every(_tuples), (63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780)),
    (_every(lambda argument: tuple(_tuples(argument))), (259, 401, 445)),
    (_every(_deep), (580, 615, 791)),
    (_first(_tuples), (75, 413, 444, 753)),
    (_first(tuple), (250, 307, 405, 446, 617, 720, 763, 808)),
    (_first(lambda items: tuple(tuple(item) if isinstance(item, list) else item for item in items)), (278,)),
    (_first(lambda items: [_set(item) for item in items]), (115,)),
    (_first(lambda table: {key: tuple(value) for key, value in table.items()}), (722,)),
    (_first(complex), (252,)),
    (lambda arguments: [arguments[0], tuple(arguments[1]), *arguments[2:]], (106, 750)),
    (lambda arguments: [float(arguments[0]), complex(arguments[1])], (124,)),
)
_CONVERTERS = {number: convert for convert, numbers in _GROUPS for number in numbers}


def mbpp_arguments(number: int, arguments: Arguments) -> tuple[Any, ...]:
    """The arguments of one call of MBPP task `number`, as its solution expects them."""
    convert = _CONVERTERS.get(number)
    return tuple(convert(arguments) if convert else arguments)
