"""Who proposes mutants: the catalogue of operators, a model behind a server, or both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from psgpo.mutation.candidates import Teacher
from psgpo.mutation.catalogue import Catalogue
from psgpo.mutation.chat import ChatServer
from psgpo.mutation.language_model import PROMPTS, LanguageModel, read_prompt
from psgpo.mutation.operators.registry import Family


def open_teachers(
    *,
    catalogue: bool,
    bugs_per_line: int,
    refactors_per_line: int,
    server: ChatServer | None,
    prompts: Mapping[Family, Path] = PROMPTS,
    per_line: int = 1,
    concurrency: int = 8,
) -> list[Teacher]:
    """The teachers that are asked for, in the order in which they are asked.

    Args:
        prompts: file of the prompt for each family.
        per_line: answers of the server for each line and family.
        concurrency: requests at the same time.

    Raises:
        UserError: a prompt cannot be read or lacks a field.
    """
    teachers: list[Teacher] = []
    if catalogue:
        teachers.append(Catalogue(bugs_per_line=bugs_per_line, refactors_per_line=refactors_per_line))
    if server is not None:
        texts = {family: read_prompt(path) for family, path in prompts.items()}
        teachers.append(LanguageModel(server=server, prompts=texts, per_line=per_line, concurrency=concurrency))
    return teachers
