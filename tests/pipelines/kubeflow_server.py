"""A small Kubeflow Pipelines that remembers what it is told, and takes only what the official definitions allow.

The definitions are in `kfp_v2beta1.json`. An int64 is a string there, but a JSON integer is one too; unknown fields
are refused.
"""

import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jsonschema
import yaml

API = json.loads((Path(__file__).parent / "kfp_v2beta1.json").read_text())
MOST = 2  # entries of a page, whatever is asked for
NOW = "2026-01-01T00:00:0{}Z"


def strict(schema: Any) -> Any:
    """The schema with int64 in both forms, and without fields that nobody defined."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if made.get("type") == "string" and made.get("format") == "int64":
        made["type"] = ["string", "integer"]
    if isinstance(made.get("properties"), dict) and "type" in made and "additionalProperties" not in made:
        made["additionalProperties"] = False
    return made


DEFINITIONS = strict(API["definitions"])


def check(value: Any, schema: dict[str, Any]) -> None:
    """Check a value against a schema of the API."""
    jsonschema.Draft7Validator(schema | {"definitions": DEFINITIONS}).validate(value)


def operation(method: str, path: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What the API says of a request, and the parts of its path."""
    for template, methods in sorted(API["paths"].items(), key=lambda item: "{" in item[0]):
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/:]+)", template)
        found = re.fullmatch(pattern, path)
        if found and method.lower() in methods:
            return methods[method.lower()], found.groupdict()
    raise LookupError(f"{method} {path}")


@dataclass
class Kubeflow:
    """What the server knows, and how it behaves."""

    url: str = ""
    token: str = ""  # that it wants to see; empty: it asks nobody
    cookie: str = ""
    multi_user: bool = False
    troubles: list[tuple[str, str, int, bool]] = field(default_factory=list)  # method, path, status, does it first
    states: list[str] = field(default_factory=lambda: ["PENDING", "RUNNING", "SUCCEEDED"])  # of a run, by turns
    requests: list[tuple[str, str, Any]] = field(default_factory=list)  # method, path, body
    wrong: list[str] = field(default_factory=list)  # what the definitions do not allow
    pipelines: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    experiments: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Any] = field(default_factory=dict)
    recurring: dict[str, Any] = field(default_factory=dict)
    uploaded: bytes = b""  # the last version

    @property
    def documents(self) -> list[Any]:
        """The parts of the last version."""
        return list(yaml.safe_load_all(self.uploaded))

    def fail(self, method: str, path: str, *statuses: int, after: bool = False) -> None:
        """Answer the next such requests with these, `after` having done what they asked for."""
        self.troubles += [(method, path, status, after) for status in statuses]

    def trouble(self, method: str, path: str) -> tuple[int, bool] | None:
        for index, (wanted, pattern, status, after) in enumerate(self.troubles):
            if wanted == method and re.search(pattern, path):
                del self.troubles[index]
                return status, after
        return None

    def keep(self, store: dict[str, Any], key: str, entry: dict[str, Any]) -> dict[str, Any]:
        identity = str(uuid.uuid4())
        store[identity] = entry | {key: identity, "created_at": NOW.format(min(len(store), 9))}
        return dict(store[identity])

    def answer(self, name: str, parts: dict[str, str], query: dict[str, str], body: Any) -> Any:
        """Do what an operation does."""
        return getattr(self, f"on_{name.partition('_')[2] or name}")(parts, query, body)

    def page(self, store: dict[str, Any], key: str, query: dict[str, str]) -> dict[str, Any]:
        entries = sorted(store.values(), key=lambda entry: str(entry["created_at"]))
        for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
            wanted = predicate.get("string_value", predicate.get("stringValue"))
            entries = [entry for entry in entries if entry[predicate["key"]] == wanted]
        start = int(query.get("page_token") or 0)
        answer: dict[str, Any] = {key: entries[start : start + MOST], "total_size": len(entries)}
        if start + MOST < len(entries):
            answer["next_page_token"] = str(start + MOST)
        return answer

    def on_GetHealthz(self, *_: Any) -> Any:  # noqa: N802  the API's own names
        return {"multi_user": self.multi_user}

    def on_ListExperiments(self, _: Any, query: dict[str, str], __: Any) -> Any:  # noqa: N802
        return self.page(self.experiments, "experiments", query)

    def on_CreateExperiment(self, _: Any, __: Any, body: Any) -> Any:  # noqa: N802
        return self.keep(self.experiments, "experiment_id", body)

    def on_ListPipelines(self, _: Any, query: dict[str, str], __: Any) -> Any:  # noqa: N802
        return self.page(self.pipelines, "pipelines", query)

    def on_CreatePipeline(self, _: Any, __: Any, body: Any) -> Any:  # noqa: N802
        return self.keep(self.pipelines, "pipeline_id", body)

    def on_ListPipelineVersions(self, parts: Any, query: dict[str, str], __: Any) -> Any:  # noqa: N802
        mine = {k: v for k, v in self.versions.items() if v["pipeline_id"] == parts["pipeline_id"]}
        return self.page(mine, "pipeline_versions", query)

    def on_UploadPipelineVersion(self, _: Any, query: dict[str, str], body: bytes) -> Any:  # noqa: N802
        assert query["pipelineid"] in self.pipelines
        if any(version["display_name"] == query["name"] for version in self.versions.values()):
            return 409
        self.uploaded = body
        entry = {"pipeline_id": query["pipelineid"], "display_name": query["name"], "name": query["name"]}
        return self.keep(self.versions, "pipeline_version_id", entry)

    def on_CreateRun(self, _: Any, __: Any, body: Any) -> Any:  # noqa: N802
        assert body["pipeline_version_reference"]["pipeline_version_id"] in self.versions
        assert body["experiment_id"] in self.experiments
        return self.keep(self.runs, "run_id", body | {"state": "PENDING"})

    def on_ListRuns(self, _: Any, query: dict[str, str], __: Any) -> Any:  # noqa: N802
        return self.page(self.runs, "runs", query)

    def on_GetRun(self, parts: Any, *_: Any) -> Any:  # noqa: N802
        run = self.runs[parts["run_id"]]
        run["state"] = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        names = ("root", "ingest-driver", "ingest", "prune")
        tasks = [{"task_id": name, "display_name": name, "state": run["state"]} for name in names]
        return run | {"run_details": {"task_details": tasks}}

    def on_ListRecurringRuns(self, _: Any, query: dict[str, str], __: Any) -> Any:  # noqa: N802
        return self.page(self.recurring, "recurringRuns", query)

    def on_CreateRecurringRun(self, _: Any, __: Any, body: Any) -> Any:  # noqa: N802
        assert body["experiment_id"] in self.experiments
        return self.keep(self.recurring, "recurring_run_id", body | {"status": body["mode"] + "D"})

    def on_DeleteRecurringRun(self, parts: Any, *_: Any) -> Any:  # noqa: N802
        del self.recurring[parts["recurring_run_id"]]
        return {}

    def on_DisableRecurringRun(self, parts: Any, *_: Any) -> Any:  # noqa: N802
        self.recurring[parts["recurring_run_id"]] |= {"mode": "DISABLE", "status": "DISABLED"}
        return {}

    def on_EnableRecurringRun(self, parts: Any, *_: Any) -> Any:  # noqa: N802
        self.recurring[parts["recurring_run_id"]] |= {"mode": "ENABLE", "status": "ENABLED"}
        return {}


def handler(state: Kubeflow) -> type[BaseHTTPRequestHandler]:
    """What serves one Kubeflow."""

    class Handler(BaseHTTPRequestHandler):
        def respond(self, method: str) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query))
            body = self.body(raw)
            state.requests.append((method, parts.path, body))
            allowed = not state.token or self.headers.get("Authorization") == f"Bearer {state.token}"
            if not allowed or (state.cookie and self.headers.get("Cookie") != state.cookie):
                return self.send(401, {"code": 16, "message": "Unauthenticated"})
            trouble = state.trouble(method, parts.path)
            if trouble and not trouble[1]:
                return self.send(trouble[0], {"code": 13, "message": "a trouble of my own"})
            try:
                answer = self.served(method, parts.path, query, body)
            except Exception as error:  # the test sees it in `wrong`
                state.wrong.append(f"{method} {parts.path}: {type(error).__name__}: {error}")
                return self.send(400, {"code": 3, "message": str(error)})
            if isinstance(answer, int) or trouble:
                return self.send(trouble[0] if trouble else answer, {"code": 6, "message": "it exists"})
            return self.send(200, answer)

        def served(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
            api, parts = operation(method, path)
            known = {parameter["name"]: parameter for parameter in api.get("parameters", [])}
            assert set(query) <= set(known), f"unknown parameters {set(query) - set(known)}"
            for parameter in known.values():
                if parameter["in"] == "body":
                    check(body, parameter["schema"])
            if query.get("filter") and "string_value" in query["filter"]:  # the SDK's own are in another, older form
                check(json.loads(query["filter"]), {"$ref": "#/definitions/v2beta1Filter"})
            answer = state.answer(api["operationId"], parts, query, body)
            if not isinstance(answer, int):
                check(answer, api["responses"]["200"]["schema"])
            return answer

        def body(self, raw: bytes) -> Any:
            kind = self.headers.get("Content-Type", "")
            if kind.startswith("multipart/"):
                message = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + raw)
                (part,) = message.get_payload()
                return part.get_payload(decode=True)  # type: ignore[union-attr]
            return json.loads(raw) if raw else None

        def send(self, status: int, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.respond("GET")

        def do_POST(self) -> None:
            self.respond("POST")

        def do_DELETE(self) -> None:
            self.respond("DELETE")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler


@contextmanager
def serving() -> Iterator[Kubeflow]:
    """A server while the block lasts; what it did not understand is an error at its end."""
    state = Kubeflow()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert state.wrong == []
