"""What every table of a recipe is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def ordered(value: tuple[float, float]) -> tuple[float, float]:
    """A range as it should be; pydantic turns the error into one that names the key."""
    if value[0] > value[1]:
        raise ValueError(f"{list(value)} is an empty range; write [fewest, most]")
    return value


Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Range = Annotated[tuple[Positive, Positive], AfterValidator(ordered)]
Schedule = Literal["constant", "linear", "cosine"]
"""How a learning rate goes on after its warm-up: it stays, or falls to 0 along a line or a cosine."""


class Section(BaseModel):
    """One table of a recipe: unknown keys are refused, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
