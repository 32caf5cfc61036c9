"""What a user is meant to read when something goes wrong: one line, who, what is wrong and what to do."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class UserError(ValueError):
    """A mistake in what the user gave: a recipe, a file, a folder, an option.

    The command line prints the message on one line and exits with status 2; no traceback.
    The message names the file (and line) or key, the problem, and what to do about it.
    """


class RefusedRowsError(UserError):
    """Some replies of a model server cannot be used; the others are kept here."""

    def __init__(
        self,
        message: str,
        refused: Mapping[int, str] | None = None,
        completions: Sequence[Any] = (),
        *,
        unproved: bool = False,
    ) -> None:
        super().__init__(message)
        self.refused = dict(refused or {})
        """Row to reason."""
        self.completions = list(completions)
        """`records.Completion`s in the order of the rows; None where refused."""
        self.unproved = unproved
        """Nothing else is wrong with the refused replies than that they are text whose token ids cannot be proved:
        asking again changes nothing, and nothing speaks against the other rows."""


@contextmanager
def reported() -> Iterator[None]:
    """End the process with one line on standard error. Exit status: 2 `UserError`, 1 full disk, 130 Ctrl-C.

    Anything else is a defect and keeps its traceback.
    """
    try:
        yield
    except UserError as error:
        _end(str(error), 2)
    except KeyboardInterrupt:
        _end("interrupted; run the same command again to go on", 130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = error.filename or Path.cwd()
        _end(f"{where}: the disk is full; free some space and run the same command again, what is done is kept", 1)


def _end(message: str, status: int) -> None:
    sys.stderr.write(f"psgpo: {message}\n")
    sys.stderr.flush()
    sys.exit(status)
