"""`psgpo.json` of an export: what the plug-in needs to know in the processes of verl. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from psgpo.config import ArmSettings, RlSettings, SandboxSettings, Section
from psgpo.errors import UserError
from psgpo.jsonl import write_json

FILE = "psgpo.json"


class VerlSettings(Section):
    """The part of a recipe that verl has no key for."""

    version: Literal[1] = 1
    arm: ArmSettings
    rl: RlSettings
    sandbox: SandboxSettings
    sandbox_workers: Annotated[int, Field(gt=0)] = 2
    """Programs that one reward worker runs side by side, where `sandbox.workers` does not say it."""
    prm_gpus: Annotated[float, Field(ge=0)] | None = None
    """GPUs of one Ray actor that holds the PRM for all reward workers (0: an actor on CPUs). None: every reward worker
    holds its own, on its CPUs."""
    prm_server: str | None = None
    """Address of a vLLM server that holds the PRM for all reward workers instead, see `psgpo.engines.pooling`."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.prm_gpus is not None and self.prm_server is not None:
            raise ValueError("the PRM is either in an actor with GPUs or on a server: give one")
        return self

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path | str) -> VerlSettings:
        """Read the file of an export.

        Raises:
            UserError: it is missing or not what `psgpo verl export` wrote.
        """
        try:
            return cls.model_validate(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, ValidationError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: not readable ({reason}); export again with psgpo verl export") from None
