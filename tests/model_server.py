"""A model server of the tests' own: it answers as it is told and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = str | dict[str, Any] | tuple[int, str] | None
"""What a chat model says, or a whole JSON reply, or (HTTP status, body), or None to say nothing for a second."""
Reply = Callable[[dict[str, Any], int], Answer]
"""(request, its number) -> the answer."""


@dataclass
class FakeServer:
    url: str = ""
    models: list[Any] | None = None
    """What `GET /models` lists; None: not found."""
    models_status: int = 200
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the POST requests, with their `path`."""
    headers: list[dict[str, str]] = field(default_factory=list)
    busy: int = 0
    """Requests that are being answered."""
    most_busy: int = 0


class _Server(ThreadingHTTPServer):
    request_queue_size = 64


@contextmanager
def fake_server(reply: Reply, models: list[Any] | None = None) -> Iterator[FakeServer]:
    state, lock = FakeServer(models=models), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.endswith("/models") and state.models is not None
            self.send((state.models_status, json.dumps({"data": state.models})) if found else (404, "no such page"))

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(state.requests)
                state.requests.append(request | {"path": self.path})
                state.headers.append(dict(self.headers))
                state.busy += 1
                state.most_busy = max(state.most_busy, state.busy)
            answer = reply(request, number)
            if answer is None:
                time.sleep(1.0)
                answer = (503, "late")
            if isinstance(answer, str):
                answer = {"choices": [{"message": {"role": "assistant", "content": answer}}]}
            with lock:
                state.busy -= 1
            self.send((200, json.dumps(answer)) if isinstance(answer, dict) else answer)

        def send(self, answer: tuple[int, str]) -> None:
            data = answer[1].encode()
            try:
                self.send_response(answer[0])
                self.send_header("Content-Length", str(len(data)))
                if answer[0] == 429:
                    self.send_header("Retry-After", "0.125")
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                pass

        def log_message(self, *_: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
