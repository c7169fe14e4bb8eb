"""`secateur doctor` with a Kubeflow of our own, and a Kubernetes that is made up."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client import ApiException

from secateur.errors import InputError
from secateur.pipelines import cli
from secateur.pipelines.doctor import examined, kubeflow, versions
from secateur.pipelines.kubernetes_checks import KubernetesChecks, SkipError
from secateur.pipelines.resources import read_cluster
from tests.pipelines.kubeflow_server import Kubeflow, serving

Invoke = Callable[..., tuple[int, dict[str, tuple[str, str]]]]


class Kubernetes:
    """What a namespace holds."""

    def __init__(self, **objects: Any) -> None:
        self.objects = objects
        self.asked: list[tuple[str, str, str]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        kind = name.removeprefix("read_namespaced_")

        def read(named: str, namespace: str, **_: Any) -> Any:
            self.asked.append((kind, named, namespace))
            found = self.objects.get(f"{kind}_{named}", ApiException(status=404))
            if isinstance(found, Exception):
                raise found
            return found

        return read

    def list_node(self, **_: Any) -> Any:
        found = self.objects["nodes"]
        if isinstance(found, Exception):
            raise found
        return SimpleNamespace(items=[SimpleNamespace(status=SimpleNamespace(allocatable=n)) for n in found])


def checks(cluster: str = "", **objects: Any) -> KubernetesChecks:
    found = KubernetesChecks("team", read_cluster(settings=cluster.split()))
    found.api = Kubernetes(**objects)
    return found


def holding(*keys: str) -> SimpleNamespace:
    return SimpleNamespace(data=dict.fromkeys(keys, "a value that nobody may see"))


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "SECATEUR_REGISTRY", "KF_PIPELINES_ENDPOINT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    monkeypatch.setattr("kfp.client.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "none.json"))
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50e9))

    def call(*options: str) -> tuple[int, dict[str, tuple[str, str]]]:
        with pytest.raises(SystemExit) as end:
            cli.main(("doctor", *options))
        lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
        return int(end.value.code or 0), {name: (mark, text) for mark, name, text in lines}

    return call


@pytest.fixture
def server() -> Iterator[Kubeflow]:
    with serving() as state:
        yield state


def test_a_laptop_is_ready_without_anything(invoke: Invoke, tmp_path: Path) -> None:
    code, found = invoke()
    assert code == 0
    assert {name for name, (mark, _) in found.items() if mark == "ok"} >= {"versions", "disk", "mlflow", "registry"}
    assert found["kubeflow"] == ("-", "no --host, and KF_PIPELINES_ENDPOINT is not set")
    assert found["settings"] == found["secrets"] == ("-", "there is no configuration for Kubernetes here")
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("mlflow.db", ".secateur")] == []


def test_each_thing_that_is_missing_has_its_line(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1e9))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:s3cret@127.0.0.1:9")
    monkeypatch.setenv("SECATEUR_REGISTRY", str(tmp_path))
    monkeypatch.setenv("SECATEUR_STATE_URI", str(tmp_path / "file" / "state"))
    code, found = invoke("--host", "http://127.0.0.1:9")
    assert code == 1
    failed = {name: text for name, (mark, text) in found.items() if mark == "failed"}
    assert set(failed) == {"disk", "mlflow", "registry", "state", "kubeflow"}
    assert failed["disk"].startswith("disk must have 5 GB free, got 1.0 in ")
    assert failed["kubeflow"].startswith("host must be a server that answers, got http://127.0.0.1:9: ")
    assert "s3cret" not in str(found)


def test_a_state_that_works_is_left_as_it_was(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECATEUR_STATE_URI", str(tmp_path / "state"))
    assert invoke()[1]["state"] == ("ok", str(tmp_path / "state"))
    assert [path for path in (tmp_path / "state").rglob("*") if path.is_file()] == []


def test_kubeflow_and_its_rights(server: Kubeflow, invoke: Invoke) -> None:
    assert invoke("--host", server.url)[1]["kubeflow"][0] == "ok"
    server.fail("GET", "recurringruns", 403)
    code, found = invoke("--host", server.url)
    assert (code, found["kubeflow"][0]) == (1, "failed")
    assert "account must have the right" in found["kubeflow"][1]
    with pytest.raises(SkipError):
        kubeflow("", "")


def test_settings_and_secrets_are_seen_by_their_keys() -> None:
    found = checks(
        "secret_files=keys",
        config_map_secateur=holding("MLFLOW_TRACKING_URI"),
        secret_secateur=holding("AWS_ACCESS_KEY_ID", "MLFLOW_TRACKING_TOKEN"),
        secret_keys=holding("id_ed25519"),
    )
    assert found.settings() == "secateur: MLFLOW_TRACKING_URI"
    assert found.secrets() == "secateur: AWS_ACCESS_KEY_ID, MLFLOW_TRACKING_TOKEN"
    assert ("secret", "keys", "team") in found.api.asked


def test_a_key_that_no_step_reads() -> None:
    with pytest.raises(InputError, match="config_map secateur must have only keys that a step reads, got MLFLOW_URI"):
        checks(config_map_secateur=holding("MLFLOW_URI")).settings()


def test_what_is_not_there_and_what_may_not_be_seen() -> None:
    with pytest.raises(InputError, match="secret must be there, got no 'secateur' in the namespace team"):
        checks().secrets()
    with pytest.raises(SkipError, match="no right to see 'secateur'"):
        checks(secret_secateur=ApiException(status=403)).secrets()
    with pytest.raises(InputError, match="HTTP status 500"):
        checks(secret_secateur=ApiException(status=500, reason="broken")).secrets()
    with pytest.raises(SkipError, match="none is wanted"):
        checks("config_map=''").settings()


def test_a_claim() -> None:
    bound = SimpleNamespace(status=SimpleNamespace(phase="Bound"), spec=SimpleNamespace(access_modes=["ReadWriteMany"]))
    assert checks("claim=data", persistent_volume_claim_data=bound).claim() == "data: Bound, ReadWriteMany"
    with pytest.raises(SkipError):
        checks().claim()


def test_gpus_of_the_nodes() -> None:
    nodes = [None, {"nvidia.com/gpu": "4"}, {"cpu": "64"}]
    assert checks("prune.gpus=4", nodes=nodes).nodes() == "a node with 4 nvidia.com/gpu"
    with pytest.raises(InputError, match=r"some node must have 8 nvidia.com/gpu, got at most 4"):
        checks("prune.gpus=8", nodes=nodes).nodes()
    with pytest.raises(SkipError, match="no right to see the nodes"):
        checks("prune.gpus=8", nodes=ApiException(status=403)).nodes()
    with pytest.raises(SkipError):
        checks(nodes=nodes).nodes()


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ["numpy", "not-a-package>=3", "extra; extra == 'x'"])
    (finding,) = examined({"versions": versions})
    assert finding.mark == "failed"
    assert "not-a-package" in capsys.readouterr().out
