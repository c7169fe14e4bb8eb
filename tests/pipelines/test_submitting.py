"""`secateur submit` and `secateur schedule` with the real SDK, against a server that checks every body."""

import hashlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import secateur
from secateur.pipelines import cli, client, submitting
from secateur.pipelines.resources import Cluster
from tests.pipelines.kubeflow_server import Kubeflow, serving

Invoke = Callable[..., SimpleNamespace]
SECRET = "s3cret-t0ken"


@pytest.fixture
def kubeflow() -> Iterator[Kubeflow]:
    with serving() as state:
        yield state


@pytest.fixture(scope="module", autouse=True)
def _compiled_once() -> Iterator[None]:
    """The same pipeline for the same cluster is compiled once: the bytes are the same."""
    compiled: dict[str, bytes] = {}
    plain = submitting.write_pipeline

    def write(output: Path, pipeline: str, cluster: Cluster, *, pinned: bool) -> None:
        key = f"{pipeline} {cluster} {pinned}"
        if key not in compiled:
            plain(output, pipeline, cluster, pinned=pinned)
            compiled[key] = output.read_bytes()
        output.write_bytes(compiled[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submitting, "write_pipeline", write)
        yield


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting comes in from the environment, and nobody waits long."""
    for name in (
        "KF_PIPELINES_ENDPOINT",
        "KUBERNETES_SERVICE_HOST",
        "MLFLOW_TRACKING_URI",
        "KF_PIPELINES_SA_TOKEN_PATH",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in ("TOKEN", "TOKEN_FILE", "COOKIE", "NAMESPACE"):
        monkeypatch.delenv(f"SECATEUR_KFP_{name}", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("kfp.client.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "no-context.json"))
    monkeypatch.setattr(client, "WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(submitting.follow, "__kwdefaults__", submitting.follow.__kwdefaults__ | {"interval": 0.0})
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)


@pytest.fixture
def invoke(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", kubeflow.url)

    def call(*arguments: str) -> SimpleNamespace:
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        out, err = capsys.readouterr()
        assert SECRET not in out + err
        return SimpleNamespace(code=end.value.code, out=out, err=err)

    return call


def only(store: dict[str, Any]) -> dict[str, Any]:
    (entry,) = store.values()
    found: dict[str, Any] = entry
    return found


def test_a_run_is_submitted(invoke: Invoke, kubeflow: Kubeflow) -> None:
    done = invoke("submit", "--keep", "0.5", "--seeds", "4,5", "--service-account", "pruner", "--experiment", "weekly")
    assert (done.code, done.err) == (0, "")
    run, version = only(kubeflow.runs), only(kubeflow.versions)
    assert run["runtime_config"]["parameters"] == {"keep": 0.5, "seeds": [4, 5]}
    assert run["service_account"] == "pruner"
    assert only(kubeflow.experiments)["display_name"] == "weekly"
    assert run["pipeline_version_reference"] == {k: version[k] for k in ("pipeline_id", "pipeline_version_id")}
    assert done.out.splitlines() == [
        f"pipeline secateur-prune, version {version['display_name']}: uploaded",
        f"run {run['run_id']}: {kubeflow.url}/#/runs/details/{run['run_id']}",
    ]
    spec, platform = kubeflow.documents
    assert spec["pipelineInfo"]["name"] == "secateur-prune"
    assert set(platform["platforms"]) == {"kubernetes"}


def test_a_version_is_named_after_its_bytes_and_uploaded_once(
    invoke: Invoke, kubeflow: Kubeflow, tmp_path: Path
) -> None:
    first = invoke("submit")
    invoke("compile", "-o", str(tmp_path / "p.yaml"), "--source", "digits")
    digest = hashlib.sha256((tmp_path / "p.yaml").read_bytes()).hexdigest()[:12]
    assert only(kubeflow.versions)["display_name"] == f"{secateur.__version__}-{digest}"
    assert "uploaded" in first.out
    again = invoke("submit", "--keep", "0.3")
    assert "there already, used as it is" in again.out
    assert len(kubeflow.versions) == 1
    assert len(kubeflow.runs) == 2
    invoke("submit", "--set", "prune.gpus=2")
    assert len(kubeflow.versions) == 2
    assert len(kubeflow.pipelines) == 1


def test_a_version_that_somebody_else_uploads_meanwhile(invoke: Invoke, kubeflow: Kubeflow) -> None:
    kubeflow.fail("POST", "upload_version", 409, after=True)
    assert invoke("submit").code == 0
    assert len(kubeflow.versions) == len(kubeflow.runs) == 1


@pytest.mark.parametrize("path", ["healthz", "experiments", "pipelines$", "versions", "upload_version", "runs"])
def test_a_server_that_fails_twice_and_then_works(invoke: Invoke, kubeflow: Kubeflow, path: str) -> None:
    for method in ("GET", "POST"):
        kubeflow.fail(method, path, 500, 503)
    assert invoke("submit").code == 0
    assert [len(s) for s in (kubeflow.pipelines, kubeflow.versions, kubeflow.experiments, kubeflow.runs)] == [1] * 4


@pytest.mark.parametrize("path", ["experiments", "pipelines$", "upload_version", "runs", "recurringruns"])
def test_what_was_done_before_a_failure_is_not_done_twice(invoke: Invoke, kubeflow: Kubeflow, path: str) -> None:
    kubeflow.fail("POST", path, 502, after=True)
    command = ("schedule", "create", "weekly") if path == "recurringruns" else ("submit",)
    assert invoke(*command).code == 0
    stores = (kubeflow.pipelines, kubeflow.versions, kubeflow.experiments, kubeflow.runs | kubeflow.recurring)
    assert [len(store) for store in stores] == [1] * 4


def test_a_server_that_goes_on_failing(invoke: Invoke, kubeflow: Kubeflow) -> None:
    kubeflow.fail("POST", "runs", *[500] * 9)
    done = invoke("submit")
    assert (done.code, kubeflow.runs) == (1, {})
    assert done.err == f"error: Kubeflow Pipelines at {kubeflow.url}: HTTP status 500: a trouble of my own\n"
    assert len(kubeflow.troubles) == 5


def test_a_wrong_token(invoke: Invoke, kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeflow.token = SECRET
    monkeypatch.setenv("SECATEUR_KFP_TOKEN", "another")
    started = time.monotonic()
    done = invoke("submit")
    assert (done.code, done.err) == (
        2,
        f"error: token or cookie must be one that {kubeflow.url} takes, got HTTP status 401\n",
    )
    assert len(kubeflow.requests) == 1
    assert time.monotonic() - started < 10


def test_a_right_that_is_missing(invoke: Invoke, kubeflow: Kubeflow) -> None:
    kubeflow.fail("POST", "runs", 403)
    done = invoke("submit")
    assert done.code == 2
    assert done.err.startswith(f"error: account must have the right to do that at {kubeflow.url}, got: HTTP status 403")


def test_a_server_that_is_away(invoke: Invoke) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = invoke("submit", "--host", url)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith(f"error: host must be a server that answers, got {url}: ")


@pytest.mark.parametrize("way", ["token", "file", "cookie", "pod"])
def test_ways_to_say_who_one_is(
    invoke: Invoke, kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    file = tmp_path / "token"
    file.write_text(SECRET)
    if way == "cookie":
        kubeflow.cookie = f"session={SECRET}"
        monkeypatch.setenv("SECATEUR_KFP_COOKIE", kubeflow.cookie)
    else:
        kubeflow.token = SECRET
        names = {"token": "SECATEUR_KFP_TOKEN", "file": "SECATEUR_KFP_TOKEN_FILE", "pod": "KF_PIPELINES_SA_TOKEN_PATH"}
        monkeypatch.setenv(names[way], SECRET if way == "token" else str(file))
    assert invoke("submit").code == 0
    assert len(kubeflow.runs) == 1


def test_in_a_pod_the_host_is_known(monkeypatch: pytest.MonkeyPatch, kubeflow: Kubeflow) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setattr(client, "POD_HOST", kubeflow.url)
    assert client.connect().host == kubeflow.url


def test_several_users_want_a_namespace(invoke: Invoke, kubeflow: Kubeflow) -> None:
    kubeflow.multi_user = True
    done = invoke("submit")
    assert (done.code, done.err) == (
        2,
        "error: namespace must be named on a Kubeflow with several users, got none\n",
    )
    assert invoke("submit", "--namespace", "team").code == 0
    assert only(kubeflow.experiments)["namespace"] == only(kubeflow.pipelines)["namespace"] == "team"


def test_waiting_shows_each_change_of_a_step(invoke: Invoke, kubeflow: Kubeflow) -> None:
    kubeflow.fail("GET", "runs/", *[500] * 3)
    done = invoke("submit", "--wait")
    assert done.code == 0
    lines = [line.split(" ", 1)[1] for line in done.out.splitlines() if line[2] == ":"]
    steps = ("ingest", "prune")
    assert lines == [f"{step}: {state}" for state in ("pending", "running", "succeeded") for step in steps]
    assert done.out.endswith("succeeded\n")


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_waiting_for_a_run_that_does_not_succeed(invoke: Invoke, kubeflow: Kubeflow, state: str) -> None:
    kubeflow.states = ["RUNNING", state]
    done = invoke("submit", "--wait")
    reason = "ingest, prune" if state == "FAILED" else "see Kubeflow"
    assert (done.code, done.err) == (1, f"error: run {only(kubeflow.runs)['run_id']} ended as {state}: {reason}\n")


def test_a_run_in_mlflow_is_quoted(invoke: Invoke, kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secateur.records.tracking.finishing.final_figures", lambda run_id: {"test_accuracy": "0.9123"})
    assert "test_accuracy: 0.9123\n" in invoke("submit", "--wait").out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--keep", "1.4"], "keep must be in (0, 1], got 1.4"),
        (["--source", "pictures"], "source must be 'digits', a URL or an absolute path that the steps see"),
        (["--baselines", "multimodal"], "baselines must be methods that do without CLIP"),
        (["--preset", "huge"], "preset must be one of cpu, cifar, imagenet, got 'huge'"),
        (["--set", "prune.gpu_count=2"], "prune must have only cpu, memory, "),
        (["--set", "prune.gpus=two"], "prune.gpus must be of the kind int, got 'two'"),
        (["--set", "prune"], "set must be as prune.gpus=2, got 'prune'"),
        (["--cluster", "nowhere.yaml"], "cluster must be a YAML file, got 'nowhere.yaml'"),
        (["--host", "kubeflow.example"], "host must be the URL of Kubeflow Pipelines, got 'kubeflow.example'"),
    ],
)
def test_wrong_input_is_refused_before_any_request(
    invoke: Invoke, kubeflow: Kubeflow, options: list[str], sentence: str
) -> None:
    done = invoke("submit", *options)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith(f"error: {sentence}")
    assert kubeflow.requests == []


def scheduled(kubeflow: Kubeflow, name: str) -> list[dict[str, Any]]:
    return [entry for entry in kubeflow.recurring.values() if entry["display_name"] == name]


def test_a_schedule_is_made(invoke: Invoke, kubeflow: Kubeflow) -> None:
    done = invoke("schedule", "create", "weekly", "--cron", "30 3 * * 1", "--source", "/data/pictures")
    assert (done.code, done.err) == (0, "")
    made = only(kubeflow.recurring)
    assert made["trigger"] == {"cron_schedule": {"cron": "0 30 3 * * 1"}}
    assert (made["max_concurrency"], made["no_catchup"], made["mode"]) == (1, True, "ENABLE")
    assert made["runtime_config"]["parameters"] == {"source": "/data/pictures"}
    assert made["pipeline_version_reference"]["pipeline_version_id"] in kubeflow.versions


@pytest.mark.parametrize(
    ("source", "cached"),
    [
        ("digits", True),
        ("/data/pictures", False),
        ("hf:owner/name", False),
        ("hf:owner/name@main", False),
        (f"hf:owner/name@{'0a' * 20}", True),
    ],
)
def test_each_run_reads_the_newest_revision_of_a_source_that_moves(
    invoke: Invoke, kubeflow: Kubeflow, source: str, cached: bool
) -> None:
    assert invoke("schedule", "create", "weekly", "--source", source).code == 0
    steps = kubeflow.documents[0]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    assert steps["ingest"]["cachingOptions"].get("enableCache", False) is cached
    assert steps["warmup"]["cachingOptions"]["enableCache"] is True


def test_a_change_replaces_the_schedule(invoke: Invoke, kubeflow: Kubeflow) -> None:
    for name in ("weekly", "weekly-2", "other"):
        invoke("schedule", "create", name, "--keep", "0.7")
    (old,) = scheduled(kubeflow, "weekly")
    done = invoke("schedule", "create", "weekly", "--keep", "0.5")
    (new,) = scheduled(kubeflow, "weekly")
    assert done.code == 0
    assert old["recurring_run_id"] in done.out
    assert new["recurring_run_id"] != old["recurring_run_id"]
    assert new["runtime_config"]["parameters"] == {"keep": 0.5}
    order = [(method, path.rpartition(":")[2]) for method, path, _ in kubeflow.requests if "recurringruns" in path]
    changes = [request for request in order if request[0] != "GET"][-3:]
    assert [method for method, _ in changes] == ["POST", "POST", "DELETE"]
    assert changes[1][1] == "disable"
    assert len(kubeflow.recurring) == 3


def test_a_change_that_fails_leaves_the_old_schedule(invoke: Invoke, kubeflow: Kubeflow) -> None:
    invoke("schedule", "create", "weekly")
    before = dict(only(kubeflow.recurring))
    kubeflow.fail("POST", "recurringruns$", *[500] * 4)
    assert invoke("schedule", "create", "weekly", "--keep", "0.5").code == 1
    assert only(kubeflow.recurring) == before


def test_an_old_schedule_that_cannot_be_removed(invoke: Invoke, kubeflow: Kubeflow) -> None:
    invoke("schedule", "create", "weekly")
    kubeflow.fail("DELETE", "recurringruns", *[500] * 4)
    done = invoke("schedule", "create", "weekly", "--keep", "0.5")
    assert done.code == 1
    assert "the same command again will try to" in done.err
    assert sorted(entry["status"] for entry in kubeflow.recurring.values()) == ["DISABLED", "ENABLED"]
    assert invoke("schedule", "create", "weekly", "--keep", "0.5").code == 0
    assert only(kubeflow.recurring)["status"] == "ENABLED"


def test_a_paused_schedule_stays_paused_when_it_is_changed(invoke: Invoke, kubeflow: Kubeflow) -> None:
    invoke("schedule", "create", "weekly")
    invoke("schedule", "pause", "weekly")
    assert "paused as it was" in invoke("schedule", "create", "weekly", "--keep", "0.5").out
    assert only(kubeflow.recurring)["mode"] == "DISABLE"


def test_the_life_of_a_schedule(invoke: Invoke, kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert "there are no schedules" in invoke("schedule", "list").out
    for name in ("a", "b", "weekly"):
        invoke("schedule", "create", name, "--keep", "0.5", "--service-account", "pruner")
    invoke("schedule", "pause", "weekly")
    listed = invoke("schedule", "list").out
    rows = [line.split() for line in listed.splitlines() if "0 0 3 * * 1" in line]
    assert [(row[0], row[7]) for row in rows] == [("a", "enabled"), ("b", "enabled"), ("weekly", "disabled")]
    invoke("schedule", "resume", "weekly")
    assert {entry["status"] for entry in kubeflow.recurring.values()} == {"ENABLED"}
    assert invoke("schedule", "run-now", "weekly").code == 0
    run = only(kubeflow.runs)
    assert run["runtime_config"]["parameters"] == {"keep": 0.5}
    assert (run["service_account"], run["display_name"].split()[0]) == ("pruner", "weekly")
    assert invoke("schedule", "delete", "weekly").code == 0
    assert len(kubeflow.recurring) == 2


@pytest.mark.parametrize("command", ["pause", "resume", "delete", "run-now"])
def test_a_schedule_that_there_is_not(invoke: Invoke, command: str) -> None:
    invoke("schedule", "create", "weekly")
    done = invoke("schedule", command, "daily")
    assert (done.code, done.err) == (2, "error: schedule must be one of weekly, got 'daily'\n")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--cron", "every monday"], "cron must be 5 or 6 fields such as '0 3 * * 1', got 'every monday'"),
        (["--concurrency", "11"], "concurrency must be in [1, 10], got 11"),
    ],
)
def test_a_schedule_that_is_none(invoke: Invoke, kubeflow: Kubeflow, options: list[str], sentence: str) -> None:
    done = invoke("schedule", "create", "weekly", *options)
    assert (done.code, done.err, kubeflow.requests) == (2, f"error: {sentence}\n", [])


def test_a_token_is_in_no_body_and_no_pipeline(
    invoke: Invoke, kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow.token = SECRET
    monkeypatch.setenv("SECATEUR_KFP_TOKEN", SECRET)
    invoke("schedule", "create", "weekly")
    bodies = json.dumps([str(body) for _, _, body in kubeflow.requests])
    assert SECRET not in bodies + yaml.safe_dump_all(kubeflow.documents)
