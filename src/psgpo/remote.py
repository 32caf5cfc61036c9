"""JSON requests to a model server: time limits, retries with growing pauses, one-line errors. Standard library only."""

from __future__ import annotations

import email.utils
import http.client
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from psgpo.errors import UserError

_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Answers after which another try makes sense."""
_MAX_PAUSE = 60.0
_MAX_BODY = 64 << 20
_SHOWN = 300
"""Most characters of a server's own words in a message."""


class UnusableReplyError(ValueError):
    """The server answered, but not with what was asked for."""


class RefusedError(UserError):
    """The server understood the request and will not serve it: asking again changes nothing."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status, 300 to 499."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """Where a server listens, and how patient its client is."""

    url: str
    """Base address, e.g. `http://localhost:8000/v1`."""
    api_key: str = ""
    timeout: float = 60.0
    """Seconds without a byte until a request is given up."""
    tries: int = 5
    """Requests until it gives up."""
    pause: float = 1.0
    """Seconds before the second try; doubled for each further one, less a random part of up to a half so that many
    clients do not come back together. A server's `Retry-After` counts instead. At most a minute."""

    def post(
        self, path: str, body: Mapping[str, Any], *, sleep: Callable[[float], object] = time.sleep
    ) -> dict[str, Any]:
        """The JSON object that a POST of `body` to `url/path` is answered with; see `get` for what it raises."""
        return self._ask(path, json.dumps(body).encode(), sleep)

    def get(self, path: str, *, sleep: Callable[[float], object] = time.sleep) -> dict[str, Any]:
        """The JSON object at `url/path`.

        Raises:
            RefusedError: the server refuses (4xx); its own words are in the message.
            UserError: no answer, or none but "busy" and "broken" (429, 5xx), after all tries.
            UnusableReplyError: the answer is no JSON object.
        """
        return self._ask(path, None, sleep)

    def _ask(self, path: str, body: bytes | None, sleep: Callable[[float], object]) -> dict[str, Any]:
        request = self._request(path, body)
        reason, pause = "", 0.0
        for number in range(self.tries):
            if number:
                sleep(pause)
            pause = min(self.pause * 2**number, _MAX_PAUSE) * random.uniform(0.5, 1.0)
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return _json_object(response.read(_MAX_BODY))
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code} {error.reason}: {_words(error)}".rstrip(": ")
                if error.code not in _BUSY:
                    message = f"{self.url}: the server refuses ({reason}); check the address, the model and the key"
                    raise RefusedError(message, error.code) from None
                pause = _asked_pause(error.headers.get("Retry-After"), pause)
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                cause = getattr(error, "reason", error)
                slow = isinstance(cause, TimeoutError)
                reason = f"nothing within {self.timeout:g} s" if slow else str(cause) or type(cause).__name__
        raise UserError(
            f"{self.url}: the server does not answer, {self.tries} tries ({reason}); check that it runs and its "
            "address, or ask for less at a time"
        )

    def _request(self, path: str, body: bytes | None) -> urllib.request.Request:
        address = f"{self.url.rstrip('/')}/{path}"
        if not address.startswith(("http://", "https://")):
            raise UserError(f"{self.url}: not an http address; write for example http://localhost:8000/v1")
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return urllib.request.Request(address, data=body, headers=headers)


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        raise UnusableReplyError(f"the reply is no JSON: {_one_line(data)!r}") from None
    if not isinstance(value, dict):
        raise UnusableReplyError(f"the reply is no JSON object: {_one_line(data)!r}")
    return value


def _words(error: urllib.error.HTTPError) -> str:
    """What the server says about it: the `message` or `detail` of a JSON answer, else its text."""
    try:
        data = error.read(1 << 16)
    except (OSError, http.client.HTTPException):
        return ""
    try:
        value = json.loads(data)
    except ValueError:
        return _one_line(data)
    if isinstance(value, dict):
        inner = value.get("error", value)
        found = inner.get("message", inner.get("detail")) if isinstance(inner, dict) else inner
        if isinstance(found, str):
            return _one_line(found.encode())
    return _one_line(data)


def _one_line(data: bytes) -> str:
    return " ".join(data.decode(errors="replace").split())[:_SHOWN]


def _asked_pause(header: str | None, usual: float) -> float:
    """Seconds of a `Retry-After`, which is a number of seconds or a date; `usual` without a readable one."""
    if not header:
        return usual
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return usual
    return min(max(seconds, 0.0), _MAX_PAUSE)
