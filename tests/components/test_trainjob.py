"""A step on several nodes, with the Trainer's own SDK over a Kubernetes that is pretended."""

import datetime
import json
import logging
import os
import types
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, watch

from secateur.components import trainjob
from secateur.components.trainjob import on_nodes
from secateur.errors import InputError
from secateur.files import read_json, write_json
from secateur.training.config import TrainConfig
from secateur.training.distributed import Echo

pytestmark = pytest.mark.filterwarnings("ignore:Support for class-based `config`")  # the SDK's own, when imported

GOLDEN = Path(__file__).parent / "golden" / "trainjob.json"
RUNTIME = {
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "ClusterTrainingRuntime",
    "metadata": {"name": "torch-distributed", "labels": {"trainer.kubeflow.org/framework": "torch"}},
    "spec": {
        "mlPolicy": {"numNodes": 1, "torch": {}},
        "template": {"spec": {"replicatedJobs": [{
            "name": "node",
            "template": {
                "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
                "spec": {"template": {"spec": {"containers": [{"name": "node", "image": "any"}]}}},
            },
        }]}},
    },
}  # fmt: skip


class Cluster:
    """TrainJobs that are done as soon as they are there; `pods` is what their pods do with the job's folder."""

    def __init__(self) -> None:
        self.jobs: dict[str, Any] = {}
        self.created: list[Any] = []
        self.deleted: list[str] = []
        self.lines = ["training"]
        self.ends, self.asked = "Complete", 0
        self.pods: Any = lambda folder: None

    def later(self, value: Any) -> Any:
        return types.SimpleNamespace(get=lambda _timeout: value)

    def create_namespaced_custom_object(self, _group: str, _version: str, _space: str, _plural: str, body: Any) -> None:
        self.created.append(body)
        stamp = {"creationTimestamp": "2026-01-01T00:00:00Z", "namespace": "team"}
        self.jobs[body["metadata"]["name"]] = {**body, "metadata": body["metadata"] | stamp}
        self.pods(Path(body["spec"]["trainer"]["command"][-1]))

    def get_namespaced_custom_object(self, *names: str, async_req: bool) -> Any:
        if names[3] != "trainjobs":
            raise client.ApiException(status=404)
        self.asked += 1
        found = dict(self.jobs[names[4]])
        if self.asked > 2:
            condition = {"type": self.ends, "status": "True", "reason": "x", "message": "x"}
            found["status"] = {"conditions": [condition | {"lastTransitionTime": "2026-01-01T00:00:00Z"}]}
        return self.later(found)

    def get_cluster_custom_object(self, *_names: str, async_req: bool) -> Any:
        return self.later(RUNTIME)

    def delete_namespaced_custom_object(self, *_names: str, name: str) -> None:
        self.deleted.append(name)

    def list_namespaced_pod(self, _space: str, label_selector: str, async_req: bool) -> Any:
        labels = {"jobset.sigs.k8s.io/replicatedjob-name": "node"}
        pods = [
            client.V1Pod(
                metadata=client.V1ObjectMeta(
                    name=f"pod-{i}",
                    labels=labels | {"batch.kubernetes.io/job-completion-index": str(i)},
                    creation_timestamp=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
                ),
                spec=client.V1PodSpec(containers=[client.V1Container(name="node", image="any")]),
                status=client.V1PodStatus(phase="Running"),
            )
            for i in range(2)
        ]
        return self.later(client.V1PodList(items=pods))

    def read_namespaced_config_map(self, name: str, namespace: str) -> Any:
        return types.SimpleNamespace(data={"kubeflow_trainer_version": "2.3.0"})

    def read_namespaced_pod_log(self, **_names: Any) -> None: ...


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cluster:
    found = Cluster()
    for api in ("CustomObjectsApi", "CoreV1Api"):
        monkeypatch.setattr(client, api, lambda _client: found)
    monkeypatch.setattr(config, "load_kube_config", lambda **_: None)
    monkeypatch.setattr("kubeflow.common.utils.get_default_target_namespace", lambda _context: "team")
    stream = types.SimpleNamespace(stream=lambda *_names, **_more: iter(found.lines))
    monkeypatch.setattr(watch, "Watch", lambda: stream)
    monkeypatch.setattr(trainjob, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(trainjob, "LONGEST_SECONDS", 20)
    (tmp_path / "shared").mkdir()
    for name, value in {
        "NODES": "2", "NODE_GPUS": "4", "NODE_CPU": "16", "NODE_MEMORY": "64Gi", "SHARED": "team-data",
        "SHARED_PATH": str(tmp_path / "shared"), "STATE_URI": "s3://bucket/state", "TOKEN": "secret",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"SECATEUR_{name}", value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return found


def warm_up(dataset_folder: str, config: TrainConfig, out_folder: str) -> dict[str, float]:
    """In the place of the library's; it is not called here, for the pods do the work."""
    raise AssertionError


def go(tmp_path: Path, dataset: str = "data") -> dict[str, float]:
    (tmp_path / dataset).mkdir(parents=True)
    (tmp_path / dataset / "table").write_text("rows")
    return on_nodes(warm_up, str(tmp_path / dataset), TrainConfig(seeds=(3,)), str(tmp_path / "out"))


def work(folder: Path) -> None:
    """What the first pod does."""
    job = read_json(folder / "job.json")
    data, settings, out = job["arguments"]
    assert (Path(data) / "table").read_text() == "rows"
    assert TrainConfig(**settings | {"seeds": tuple(settings["seeds"])}) == TrainConfig(seeds=(3,))
    assert job["step"] == "warm_up"
    Path(out).mkdir()
    (Path(out) / "model").write_text("weights")
    echo = Echo(folder / "log.jsonl")
    echo.handle(logging.makeLogRecord({"name": "secateur.training", "msg": "epoch 1", "levelno": 20, "curve": [0, []]}))
    echo.close()
    write_json(folder / "result.json", {"train_loss": 0.5})


def test_the_trainjob_is_the_golden_one(cluster: Cluster, tmp_path: Path) -> None:
    cluster.pods = work
    go(tmp_path)
    (body,) = cluster.created
    made = json.dumps(body, indent=1, sort_keys=True)
    made = made.replace(body["metadata"]["name"], "NAME").replace(str(tmp_path / "shared"), "/shared") + "\n"
    if os.environ.get("SECATEUR_RENEW"):
        GOLDEN.write_text(made)
    assert made == GOLDEN.read_text()
    assert "secret" not in made


def test_the_nodes_do_the_step(cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cluster.pods = work
    with caplog.at_level(logging.INFO):
        assert go(tmp_path) == {"train_loss": 0.5}
    assert (tmp_path / "out" / "model").read_text() == "weights"
    assert not list((tmp_path / "shared" / "secateur-jobs").iterdir())
    assert cluster.deleted == [cluster.created[0]["metadata"]["name"]]
    assert [r.curve for r in caplog.records if r.getMessage() == "epoch 1"] == [[0, []]]
    assert "| training" in caplog.text


def test_data_on_the_shared_volume_stay_there(cluster: Cluster, tmp_path: Path) -> None:
    seen = []

    def pods(folder: Path) -> None:
        work(folder)
        seen.append(read_json(folder / "job.json")["arguments"][0])

    cluster.pods = pods
    go(tmp_path, "shared/data")
    assert seen == [str(tmp_path / "shared" / "data")]


def test_a_failure_on_a_node_is_the_steps(cluster: Cluster, tmp_path: Path) -> None:
    def pods(folder: Path) -> None:
        told = {"rank": 5, "time": 1.0, "input": True, "message": "loss must be finite, got nan", "traceback": "there"}
        write_json(folder / "error-5.json", told)

    cluster.pods, cluster.ends = pods, "Failed"
    with pytest.raises(InputError, match=r"^loss must be finite, got nan") as caught:
        go(tmp_path)
    assert caught.value.__notes__ == ["there"]
    assert not (tmp_path / "out").exists()
    assert len(cluster.deleted) == 1


def test_a_trainjob_that_fails_without_a_word(cluster: Cluster, tmp_path: Path) -> None:
    cluster.ends, cluster.lines = "Failed", ["pulling", "no space left on device"]
    with pytest.raises(RuntimeError, match=r"^TrainJob secateur-warm-up-\w+ failed: no space left on device$"):
        go(tmp_path)
    assert len(cluster.deleted) == 1


def test_a_log_that_breaks_off_does_not_end_the_wait(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_names: Any, **_more: Any) -> Any:
        raise ConnectionError

    monkeypatch.setattr(watch, "Watch", lambda: types.SimpleNamespace(stream=broken))
    cluster.pods = work
    assert go(tmp_path) == {"train_loss": 0.5}
    assert "is cut off" in caplog.text


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SECATEUR_NODES", "two", "SECATEUR_NODES must be a whole number from 0, got 'two'"),
        ("SECATEUR_SHARED", "", "SECATEUR_SHARED must name a volume claim that 2 nodes share, got none"),
        ("SECATEUR_SHARED_PATH", "/nowhere", "SECATEUR_SHARED_PATH must be where the volume claim 'team-data' is"),
    ],
)
def test_wrong_environment(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        go(tmp_path)
    assert not cluster.created


def test_one_node_is_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECATEUR_NODES", raising=False)
    assert on_nodes(lambda *values: sum(values), 1, 2) == 3
