"""A response cut at its line ends: what can be probed, and the token ids of every prefix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psgpo.errors import UserError
from psgpo.lines import CodeLine, TokenText, code_lines, line_end_tokens
from psgpo.records import Response


@dataclass(frozen=True, kw_only=True, slots=True)
class CutResponse:
    """A response, its lines and where they end."""

    response: Response
    lines: tuple[CodeLine, ...]
    line_ends: tuple[int, ...]
    """Per line, index into `response.token_ids` of the token that ends it."""
    own_ids: tuple[int, ...]
    """`response.token_ids` without the end-of-sequence token: what a prefix may hold."""

    @property
    def neutral(self) -> tuple[bool, ...]:
        return tuple(line.neutral for line in self.lines)

    @property
    def code(self) -> tuple[int, ...]:
        """Numbers (from 1) of the lines that are not neutral: those the search asks about."""
        return tuple(number for number, line in enumerate(self.lines, start=1) if not line.neutral)

    def prefix(self, line: int) -> tuple[int, ...]:
        """Sampled ids of the first `line` lines (from 1), the prompt left out.

        The ids up to and including the line's last token, never re-tokenised text. The end-of-sequence token is
        left out: whether the response stopped there is no property of the prefix, and nothing could follow it.
        """
        return self.own_ids[: self.line_ends[line - 1] + 1]

    def by_line(self, values: Sequence[float]) -> list[list[float]]:
        """One value per token, cut into code lines: those after the end of the line before, up to its own."""
        starts = [0, *(end + 1 for end in self.line_ends)]
        return [list(values[starts[line - 1] : self.line_ends[line - 1] + 1]) for line in self.code]


def cut_response(response: Response, token_text: TokenText) -> CutResponse:
    """Find the lines of a response and the tokens that end them.

    Raises:
        UserError: the response's ids do not decode to its text, so they come from another tokenizer.
    """
    text, char_ends = token_text.decode_with_ends(response.token_ids)
    if text != response.text:
        raise UserError(
            f"response {response.index} of problem {response.problem_id} ({response.checkpoint}): its token ids do "
            "not decode to its text; give the tokenizer it was sampled with"
        )
    lines = code_lines(text)
    own_ids = response.token_ids[:-1] if response.finished else response.token_ids
    return CutResponse(
        response=response, lines=lines, line_ends=line_end_tokens(char_ends, lines), own_ids=tuple(own_ids)
    )
