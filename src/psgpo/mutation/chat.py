"""A small client of any OpenAI-compatible chat server: retries, timeouts, plain text out. Standard library only."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psgpo.errors import UserError

_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Answers after which another try makes sense."""
_MAX_PAUSE = 60.0
_MAX_BODY = 8 << 20


class UnusableReplyError(ValueError):
    """The server answered, but not with a text."""


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
    """Seconds before the second try; doubled for each further one, unless the server says how long."""

    def ask(self, prompt: str, *, seed: int | None = None, sleep: Callable[[float], None] = time.sleep) -> str:
        """The model's answer to one message.

        Raises:
            UserError: the server is down, slow or refuses, after all tries.
            UnusableReplyError: it answered with something that holds no text.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        if seed is not None:
            body["seed"] = seed % (1 << 31)
        reason, pause = "", self.pause
        for number in range(self.tries):
            if number:
                sleep(pause)
            pause = min(self.pause * 2**number, _MAX_PAUSE)
            try:
                return _text(self._post(json.dumps(body).encode()))
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code} {error.reason}: {_said(error)}"
                if error.code not in _BUSY:
                    break
                pause = _asked_pause(error, pause)
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise UserError(f"{self.url}: the server does not answer ({reason}); check the address, the model and the key")

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        address = f"{self.url.rstrip('/')}/chat/completions"
        if not address.startswith(("http://", "https://")):
            raise UserError(f"{self.url}: not an http address; write for example http://localhost:8000/v1")
        request = urllib.request.Request(address, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as response:
            data: bytes = response.read(_MAX_BODY)
        return data


def _text(data: bytes) -> str:
    try:
        content = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise UnusableReplyError("the reply is no chat completion") from None
    if not isinstance(content, str):
        raise UnusableReplyError("the reply holds no text")
    return content


def _said(error: urllib.error.HTTPError) -> str:
    try:
        return " ".join(error.read(300).decode(errors="replace").split())
    except OSError:
        return ""


def _asked_pause(error: urllib.error.HTTPError, usual: float) -> float:
    try:
        return min(max(float(error.headers.get("Retry-After", "")), 0.0), _MAX_PAUSE)
    except ValueError:
        return usual
