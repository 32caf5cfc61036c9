"""Where lines of a text end in the ids that a tokenizer makes of it, for tokenizers that change the text too.

For a tokenizer whose ids decode to the text (byte-level BPE) this is `psgpo.lines.line_end_tokens`. Others drop
newlines, fold case, put a space in front or read special tokens inside the code: then the offsets that the tokenizer
reports decide, and line m ends with the last token that starts inside it.
"""

# T tokens, L code lines

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from psgpo.errors import UserError
from psgpo.lines import CodeLine, Tokenizer, TokenText, code_lines, line_end_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Aligned:
    """A text as ids."""

    token_ids: tuple[int, ...]
    """Shape: (T,)."""
    line_ends: tuple[int, ...]
    """Per line the index of the token that ends it; -1 where no token stands before the line's end. Shape: (L,)."""
    overhang: tuple[bool, ...]
    """Per line, whether that token also holds text of a later line (other than white space): its score would then
    know more than the prefix. Shape: (L,)."""
    lines: tuple[CodeLine, ...]
    """Shape: (L,)."""


class Aligner:
    """Text to ids with line ends, under any fast tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._text = TokenText(cast(Tokenizer, tokenizer))

    def __call__(self, text: str) -> Aligned:
        """Align a response text; its lines are those of the code in it.

        Raises:
            UserError: the tokenizer changes the text and reports no offsets.
        """
        lines = code_lines(text)
        ids = tuple(int(token) for token in self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if not lines:
            return Aligned(token_ids=ids, line_ends=(), overhang=(), lines=())
        decoded, stops = self._text.decode_with_ends(ids)
        if decoded == text:
            ends = line_end_tokens(stops, lines)
        else:
            starts, stops = self._offsets(text)
            ends = tuple(_last_before(starts, line.end) for line in lines)
        return Aligned(
            token_ids=ids,
            line_ends=ends,
            overhang=tuple(bool(text[line.end : stops[end]].strip()) for line, end in zip(lines, ends, strict=True)),
            lines=lines,
        )

    def alone(self, aligned: Aligned, text: str) -> dict[int, tuple[int, ...]]:
        """Ids of the prefix of each line whose end token would know the next line, by line number from 0."""
        return {
            m: self(text[: line.end]).token_ids
            for m, (line, over) in enumerate(zip(aligned.lines, aligned.overhang, strict=True))
            if over
        }

    def _offsets(self, text: str) -> tuple[list[int], list[int]]:
        if not getattr(self.tokenizer, "is_fast", False):
            raise UserError(
                f"{type(self.tokenizer).__name__}: this tokenizer changes text and reports no offsets, so lines cannot "
                "be found in its ids; use the model's fast tokenizer (tokenizer.json)"
            )
        spans = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return [int(start) for start, _ in spans], [int(stop) for _, stop in spans]


def _last_before(starts: Sequence[int], end: int) -> int:
    """Index of the last token that starts before `end`; -1 for none. Starts need not rise (zero-width tokens)."""
    return next((t for t in range(len(starts) - 1, -1, -1) if starts[t] < end), -1)


def code_alone(text: str) -> str:
    """The lines of code of a response, what an ORM reads: no prose, no fence, no newline behind the last line.

    Lines of code that open a fence would be read in another way alone; they stay behind the text before them.

    >>> code_alone("Here:\\n```python\\nx = 1\\n```\\n")
    'x = 1'
    """
    lines = code_lines(text)
    alone = "\n".join(line.text for line in lines)
    if len(code_lines(alone)) != len(lines):
        return text[: lines[-1].start + len(lines[-1].text)]
    return alone if lines else text


def with_end(aligned: Aligned, text: str, eos: int) -> Aligned:
    """The same with an end-of-sequence id behind a last line without a newline, which then ends there."""
    if not aligned.lines or text[: aligned.lines[-1].end].endswith("\n"):
        return aligned
    return replace(
        aligned,
        token_ids=(*aligned.token_ids, eos),
        line_ends=(*aligned.line_ends[:-1], len(aligned.token_ids)),
        overhang=(*aligned.overhang[:-1], False),
    )
