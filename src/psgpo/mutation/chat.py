"""A small client of any OpenAI-compatible chat server: one message in, plain text out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psgpo.remote import Endpoint, UnusableReplyError


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatServer:
    """Where a model answers."""

    url: str
    """Up to and without `/chat/completions`, e.g. `http://localhost:8000/v1`."""
    model: str
    api_key: str = ""
    temperature: float = 0.8
    max_tokens: int = 512
    timeout: float = 60.0
    """Seconds for one request."""
    tries: int = 5
    """Requests until it gives up."""
    pause: float = 1.0
    """Seconds before the second try; see `psgpo.remote.Endpoint`."""

    def ask(self, prompt: str, *, seed: int | None = None, sleep: Callable[[float], None] = time.sleep) -> str:
        """The model's answer to one message.

        Raises:
            UserError: the server is down, slow or refuses, after all tries.
            UnusableReplyError: it answered with something that holds no text, or with a text that was cut off.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        if seed is not None:
            body["seed"] = seed % (1 << 31)
        endpoint = Endpoint(
            url=self.url, api_key=self.api_key, timeout=self.timeout, tries=self.tries, pause=self.pause
        )
        try:
            choice = endpoint.post("chat/completions", body, sleep=sleep)["choices"][0]
            content, reason = choice["message"]["content"], choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise UnusableReplyError("the reply is no chat completion") from None
        if reason == "length":
            raise UnusableReplyError(f"the reply was cut off, at most after {self.max_tokens} tokens (--max-tokens)")
        if not isinstance(content, str):
            raise UnusableReplyError("the reply holds no text")
        return content
