"""A small engine that speaks as much of Docker's API as a run needs; its containers are processes here.

A container finds only its own environment, beside the path of this interpreter, as if that were the image's.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

IMAGE = "toy:latest"
TAGS = {IMAGE: IMAGE, "more:1": "localhost/more:1"}  # what the engine itself calls them
PREFIX = re.compile(r"^/v[\d.]+")


class Engine(ThreadingHTTPServer):
    """What was asked for, and what runs.

    Attributes:
        bodies: Of all that asked for a container, by its id.
        says: What it says of itself.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: dict[str, dict[str, Any]] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.says: dict[str, Any] = {"SecurityOptions": []}

    @property
    def host(self) -> str:
        return f"tcp://127.0.0.1:{self.server_port}"

    def start(self, name: str) -> None:
        body = self.bodies[name]
        environment = dict(setting.split("=", 1) for setting in body["Env"])
        self.processes[name] = subprocess.Popen(
            body["Cmd"],
            env={"PATH": f"{Path(sys.executable).parent}:{os.defpath}"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


class Handler(BaseHTTPRequestHandler):
    """Docker's API, version 1.41."""

    server: Engine

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        match PREFIX.sub("", address.path).strip("/").split("/"):
            case ["version"]:
                self.answer({"ApiVersion": "1.41"})
            case ["info"]:
                self.answer(self.server.says)
            case ["images", "json"]:
                self.answer([{"Id": name} for name in TAGS])
            case ["images", *name, "json"]:
                tag = TAGS.get("/".join(name))
                self.answer(
                    {"Id": tag, "RepoTags": [tag], "RepoDigests": [], "message": "for those that are not there"},
                    200 if tag else 404,
                )
            case ["containers", "json"]:
                [label] = json.loads(parse_qs(address.query)["filters"][0])["label"]
                found = [n for n, b in self.server.bodies.items() if "=".join(*b["Labels"].items()) == label]
                self.answer([{"Id": name} for name in found if self.server.processes[name].poll() is None])
            case ["containers", name, "json"]:
                log = {"LogConfig": {"Type": "json-file"}}
                self.answer({"Id": name, "Image": IMAGE, "Config": {"Tty": False}, "HostConfig": log})
            case ["containers", name, "logs"]:
                self.answer_head(200)
                for line in self.server.processes[name].stdout or ():
                    self.wfile.write(b"\1\0\0\0" + len(line).to_bytes(4, "big") + line)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        match PREFIX.sub("", urlsplit(self.path).path).strip("/").split("/"):
            case ["containers", "create"]:
                name = f"c{len(self.server.bodies)}"
                self.server.bodies[name] = json.loads(content)
                self.answer({"Id": name}, 201)
            case ["containers", name, "start"]:
                self.server.start(name)
                self.answer_head(204)
            case ["containers", name, "wait"]:
                self.answer({"StatusCode": self.server.processes[name].wait()})

    def do_DELETE(self) -> None:
        name = urlsplit(self.path).path.rsplit("/", 1)[-1]
        with suppress(ProcessLookupError):
            os.killpg(self.server.processes[name].pid, signal.SIGKILL)
        self.answer_head(204)

    def answer(self, body: object, status: int = 200) -> None:
        self.answer_head(status)
        self.wfile.write(json.dumps(body).encode())

    def answer_head(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def docker_engine() -> Iterator[Engine]:
    """Runs one; at the end, nothing that it started is left."""
    with Engine() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
            for process in server.processes.values():
                process.kill()
                process.wait()
                if process.stdout:
                    process.stdout.close()
