"""Token ids from servers that speak text: proved to continue the prefix, or refused.

A server that returns token ids needs none of this. Every other one returns text, and text must be cut into ids again.
Two things can go wrong silently, and are checked here:

- the server reads other tokens than the prefix (it adds a BOS token, or cuts the text at other places). Where it takes
  ids it cannot; where it takes text, the text must encode to exactly the prefix, by the local tokenizer and by the
  server's own count of prompt tokens;
- the ids of the reply do not continue the prefix: a merge across the border, a reply that ends inside a character.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

REPLACEMENT = "\ufffd"
"""What decoders write for bytes that are no character (yet): which bytes, nobody can tell."""


class MisalignedError(ValueError):
    """A prefix or a reply whose ids cannot be proved; the message says why."""


class TextBorder:
    """The border between ids and text for one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # What this tokenizer, and so a server that uses it, puts before every text.
        self._automatic: list[int] = list(tokenizer("")["input_ids"])

    def text_to_send(self, prefix: Sequence[int]) -> str:
        """The text that a server reads as exactly these ids.

        Raises:
            MisalignedError: there is none: the ids are not what the tokenizer makes of their own text.
        """
        count = len(self._automatic)
        body = list(prefix[count:]) if list(prefix[:count]) == self._automatic else list(prefix)
        text = self._decode(body)
        if list(self._tokenizer(text)["input_ids"]) != list(prefix):
            raise MisalignedError("the prefix, as text, encodes to other ids; only a server that takes ids can go on")
        return text

    def after_text(self, prefix: Sequence[int], sent: str, reply: str) -> list[int]:
        """Ids of a reply to a prefix that was sent as text: those behind the prefix in the encoding of both.

        Raises:
            MisalignedError: the encoding does not begin with the prefix.
        """
        self._refuse_broken(reply)
        ids = list(self._tokenizer(sent + reply)["input_ids"])
        if ids[: len(prefix)] != list(prefix):
            raise MisalignedError("prefix and reply encode to ids that do not begin with the prefix")
        return ids[len(prefix) :]

    def after_ids(self, prefix: Sequence[int], reply: str) -> list[int]:
        """Ids of a reply to a prefix that was sent as ids.

        Raises:
            MisalignedError: prefix and ids do not decode to the texts joined.
        """
        self._refuse_broken(reply)
        ids = list(self._tokenizer(reply, add_special_tokens=False)["input_ids"])
        if self._decode([*prefix, *ids]) != self._decode(prefix) + reply:
            raise MisalignedError("the ids of the reply, put behind the prefix, decode to another text")
        return ids

    def spelled(self, ids: Sequence[int], words: Sequence[str]) -> bool:
        """Whether these are the ids' own texts, one by one: then the ids are those that were sampled."""
        return len(ids) <= len(words) and all(
            self._decode([token]) == word for token, word in zip(ids, words, strict=False)
        )

    def _refuse_broken(self, reply: str) -> None:
        if REPLACEMENT in reply:
            raise MisalignedError("the reply holds bytes that are no whole character")

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text
