"""A server that takes alerts."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Alerts:
    """What came in."""

    url: str = ""
    refusals: int = 0  # requests that are refused before one is taken
    asked: int = 0
    taken: list[Any] = field(default_factory=list)


@contextmanager
def listening() -> Iterator[Alerts]:
    """A server while the block lasts."""
    state = Alerts()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked += 1
            refused = state.asked <= state.refusals
            if not refused:
                state.taken.append(body)
            self.send_response(503 if refused else 200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_port}/hook/s3cret"
        yield state
        server.shutdown()
