"""Code lines inside a response: where they end, in characters and in tokens, and which are neutral. No torch.

The line is the unit of PSGPO. A *response* is the token ids the policy sampled; its *lines* are those of the
code in it. The **end of line m is the token that contains its newline**, or the response's last token when the
line has none. Prefixes are cut at token ids, never at re-tokenised text, so a BPE that merges a newline with its
neighbours (`:\\n`, `\\n\\n`, `\\n    `) needs no special case: the token belongs to the line whose newline it holds.

Neutral lines (PSGPO, section "neutral labelling"): blank lines, comments, and statements that are nothing but a
string (docstrings). They carry label 0. A partial program is classified too.
"""

from __future__ import annotations

import codecs
import json
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)")
_STRING_START = re.compile(r"(?i)(?:[rbu]|br|rb)?('''|\"\"\"|'|\")")
_BARE_STRING = re.compile(r"(?i)\s*(?:[rbu]|br|rb)?['\"]")
_WORD = re.compile(r"\w+")
_CONTINUES = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*(?:[ ]{2,}|[ ]*\t)[ \t]*[^\s#]")
"""The first line that is neither empty nor a comment is indented: the text goes on inside a function of the prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeLine:
    """One line of the code in a response."""

    start: int
    """Character offset of the line's first character in the response text."""
    end: int
    """Exclusive character offset, the newline included when there is one."""
    text: str
    """The line without its newline."""
    neutral: bool
    """Blank, comment or docstring: says nothing about correctness."""


def code_span(text: str) -> tuple[int, int]:
    """Character span `[start, end)` of the code in a response: the first fenced block, else all of it.

    A fence that opens and never closes (a response cut off) runs to the end. A bare fence after text that goes on
    inside a function closes a block that the prompt opened: the code is what stands before it.
    """
    start: int | None = None
    fence = ""
    offset = 0
    for line in _split(text):
        match = _FENCE.match(line)
        if match and start is None:
            if line.strip() == match.group(1) and goes_on_inside(text[:offset]):
                return 0, offset
            start, fence = offset + len(line), match.group(1)
        elif match and match.group(1)[0] == fence[0] and not line.strip().strip(fence[0]):
            assert start is not None
            return start, offset
        offset += len(line)
    return (0 if start is None else start), len(text)


def goes_on_inside(text: str) -> bool:
    """Whether a response begins inside a function of its prompt: by two spaces or a tab; prose may begin with one."""
    return _CONTINUES.match(text) is not None


def extract_code(text: str) -> str:
    """The program in a response: the first fenced block when there is one, else the whole text."""
    start, end = code_span(text)
    return text[start:end]


def code_lines(text: str) -> tuple[CodeLine, ...]:
    """Lines of the code in a response, in order. Blank lines after the last non-blank one are left out.

    Only `\\n` ends a line (a `\\r` before it stays in `text`), as in the tokenizers' view of a newline.
    """
    start, end = code_span(text)
    code = text[start:end]
    body = code.rstrip()
    if not body:
        return ()
    newline = code.find("\n", len(body))
    code = code if newline < 0 else code[: newline + 1]
    neutral = _neutral_flags(code)
    lines: list[CodeLine] = []
    offset = start
    for raw, flag in zip(_split(code), neutral, strict=True):
        content = raw[:-1] if raw.endswith("\n") else raw
        lines.append(CodeLine(start=offset, end=offset + len(raw), text=content, neutral=flag))
        offset += len(raw)
    return tuple(lines)


def _split(code: str) -> list[str]:
    """Pieces with their newline; `str.splitlines` would cut at form feeds and Unicode separators too."""
    parts = code.split("\n")
    return [part + "\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


@lru_cache(maxsize=65536)
def _neutral_flags(code: str) -> tuple[bool, ...]:
    """Per line of `code`: True unless some statement other than a bare string has a character on it."""
    pieces = _split(code)
    if not any(quote in code for quote in ("'''", '"""')) and not any(_BARE_STRING.match(piece) for piece in pieces):
        # No string spans lines or begins one: the common case, without a scan.
        return tuple(not piece.strip() or piece.lstrip()[0] == "#" for piece in pieces)
    has_code = [False] * len(pieces)
    line, position, depth = 0, 0, 0
    statement_start = True
    pending: list[int] = []  # lines of a string that so far is a whole statement
    while position < len(code):
        char = code[position]
        if char == "\n":
            if depth == 0 and code[position - 1 : position] != "\\":
                statement_start, pending = True, []
            line, position = line + 1, position + 1
        elif char.isspace() or char == ";":
            position += 1
        elif char == "#":
            newline = code.find("\n", position)
            position = len(code) if newline < 0 else newline
        elif (string := _STRING_START.match(code, position)) is not None:
            stop = _string_end(code, string.end(), string.group(1))
            touched = list(range(line, line + code.count("\n", position, stop) + 1))
            if statement_start:
                pending = touched
            else:
                for index in touched:
                    has_code[min(index, len(pieces) - 1)] = True
            statement_start = False
            line, position = touched[-1], stop
        else:
            for index in pending:
                has_code[index] = True
            pending = []
            has_code[line] = True
            depth = max(0, depth + (char in "([{") - (char in ")]}"))
            statement_start = False
            # A word is skipped whole, so that the quote after an f-prefix is not taken for a bare string.
            word = _WORD.match(code, position)
            position = word.end() if word else position + 1
    return tuple(not flag for flag in has_code)


def _string_end(code: str, position: int, quote: str) -> int:
    """Offset after the closing quote; a one-line string left open ends at its newline, a triple one at the end."""
    while position < len(code):
        if code[position] == "\\":
            position += 2
        elif code.startswith(quote, position):
            return position + len(quote)
        elif code[position] == "\n" and len(quote) == 1:
            return position
        else:
            position += 1
    return len(code)


def line_end_tokens(char_ends: Sequence[int], lines: Sequence[CodeLine]) -> tuple[int, ...]:
    """Per line, the index of the token that contains its newline; the last token for a line without one.

    Args:
        char_ends: exclusive end offset, in characters of the response text, of every token (`TokenText.char_ends`).
        lines: `code_lines(text)` of the same response.

    Two lines may end in the same token when the tokenizer merges newlines (`\\n\\n`).
    """
    if not lines:
        return ()
    last = len(char_ends) - 1
    ends = [min(bisect_left(char_ends, line.end), last) for line in lines]
    if lines[-1].end == lines[-1].start + len(lines[-1].text):  # no newline
        ends[-1] = last
    return tuple(ends)


class Tokenizer(Protocol):
    """The part of a Hugging Face fast tokenizer that alignment needs."""

    @property
    def all_special_ids(self) -> list[int]: ...

    @property
    def backend_tokenizer(self) -> Any: ...

    def convert_ids_to_tokens(self, ids: list[int]) -> Any: ...

    def decode(self, token_ids: list[int], **kwargs: Any) -> Any: ...

    def __len__(self) -> int: ...


class TokenText:
    """Token ids to text, with the character at which every token ends.

    For byte-level BPE (GPT-2, Llama 3, Qwen, StarCoder, CodeT5) tokens are joined as bytes, in time linear in the
    response, and a multi-byte character counts for the token that completes it. Any other tokenizer is asked to
    decode every prefix, which is exact and quadratic. Special tokens have no width.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._bytes = _byte_level_vocabulary(tokenizer)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a response, special tokens left out, spaces untouched."""
        return self._pieces(ids)[0]

    def char_ends(self, ids: Sequence[int]) -> list[int]:
        """Exclusive end offset in `decode(ids)`, in characters, of every token. Shape: len(ids)."""
        return self._pieces(ids)[1]

    def decode_with_ends(self, ids: Sequence[int]) -> tuple[str, list[int]]:
        """`decode(ids)` and `char_ends(ids)` for the price of one."""
        return self._pieces(ids)

    def _pieces(self, ids: Sequence[int]) -> tuple[str, list[int]]:
        if self._bytes is None:
            return self._pieces_by_prefix(ids)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        parts: list[str] = []
        ends: list[int] = []
        length = 0
        for token in ids:
            # Ids past the tokenizer exist where the logits are padded (Qwen2.5); they stand for nothing.
            part = decoder.decode(self._bytes[token] if token < len(self._bytes) else b"")
            length += len(part)
            parts.append(part)
            ends.append(length)
        tail = decoder.decode(b"", final=True)
        if tail:
            parts.append(tail)
            ends[-1] += len(tail)
        return "".join(parts), ends

    def _pieces_by_prefix(self, ids: Sequence[int]) -> tuple[str, list[int]]:
        decode = self._tokenizer.decode
        options: dict[str, Any] = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        text = decode(list(ids), **options)
        ends: list[int] = []
        for stop in range(1, len(ids) + 1):
            prefix = decode(list(ids[:stop]), **options).rstrip("\ufffd")  # a character still incomplete
            ends.append(len(text) if stop == len(ids) else min(len(prefix), len(text)))
        return text, ends


@lru_cache(maxsize=1)
def _unicode_to_byte() -> dict[str, int]:
    """The published GPT-2 table: printable bytes stand for themselves, the others are shifted past U+0100."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): byte for byte in printable}
    shifted = 0
    for byte in range(256):
        if byte not in printable:
            table[chr(256 + shifted)] = byte
            shifted += 1
    return table


def _byte_level_vocabulary(tokenizer: Tokenizer) -> list[bytes] | None:
    """Bytes of every token id, or None when the tokenizer is not byte-level BPE."""
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    if "ByteLevel" not in json.dumps(description.get("decoder") or {}):
        return None
    table = _unicode_to_byte()
    added = {int(token["id"]): str(token["content"]) for token in description.get("added_tokens", [])}
    # What decoding skips: the named special tokens and every added token marked special (`<|im_end|>`).
    marked = (int(token["id"]) for token in description.get("added_tokens", []) if token.get("special"))
    special = frozenset([*tokenizer.all_special_ids, *marked])
    vocabulary: list[bytes] = []
    for index, token in enumerate(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))):
        if index in special or token is None:
            vocabulary.append(b"")
        elif index in added:
            vocabulary.append(added[index].encode())
        elif all(char in table for char in token):
            vocabulary.append(bytes(table[char] for char in token))
        else:
            return None
    return vocabulary
