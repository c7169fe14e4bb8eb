"""What a pipeline is given for a cluster, and that it ends in `finish` whatever happens."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from secateur.errors import InputError
from secateur.pipelines import cluster as clusters
from secateur.pipelines.local import step_environment
from secateur.pipelines.prune import prune_pipeline
from secateur.pipelines.resources import ALL, PRESETS, Cluster, Resources, read_cluster
from secateur.pipelines.sweep import sweep_pipeline
from tests.alerts import Alerts
from tests.pipelines.toy_pipeline import toy_pipeline

FILE = """
image: registry.example/secateur:7
config_map: settings
secret: credentials
secret_files: keys
claim: pictures
image_pull_secrets: [pull]
image_pull_policy: Always
labels: {team: vision}
preset: cpu
steps:
  all: {retries: 5}
  work:
    cpu: 8
    memory: 64Gi
    gpus: 2
    gpu: amd.com/gpu
    shm: 16Gi
    scratch: 100Gi
    node_selector: {pool: gpu}
    tolerations: [{key: gpu, operator: Exists, effect: NoSchedule}]
    retry_wait: 10
    hours: 0.5
"""


def named(name: str, parameter: str) -> dict[str, Any]:
    return {parameter: name, f"{parameter}Parameter": {"runtimeValue": {"constant": name}}}


def parts(tmp_path: Path, cluster: Cluster, pipeline: Any = toy_pipeline) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both documents of a compiled pipeline."""
    file = tmp_path / "pipeline.yaml"
    clusters.compile_pipeline(clusters.for_cluster(pipeline, cluster), str(file))
    spec, platform = yaml.safe_load_all(file.read_text())
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_everything_that_can_be_said_of_a_step(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(FILE)
    spec, kubernetes = parts(tmp_path, read_cluster(file))
    assert kubernetes["exec-work"] == {
        "activeDeadlineSeconds": "1800",
        "configMapAsEnv": [
            named("settings", "configMapName")
            | {"keyToEnv": [{"configMapKey": key, "envVar": key} for key in clusters.SETTINGS], "optional": True}
        ],
        "secretAsEnv": [
            named("credentials", "secretName")
            | {"keyToEnv": [{"secretKey": key, "envVar": key} for key in clusters.CREDENTIALS], "optional": True}
        ],
        "secretAsVolume": [named("keys", "secretName") | {"mountPath": "/etc/secateur", "optional": False}],
        "pvcMount": [
            {
                "mountPath": "/data",
                "constant": "pictures",
                "pvcNameParameter": {"runtimeValue": {"constant": "pictures"}},
            }
        ],
        "emptyDirMounts": [
            {"volumeName": "shm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "16Gi"},
            {"volumeName": "scratch", "mountPath": "/tmp", "sizeLimit": "100Gi"},
        ],
        "fieldPathAsEnv": [{"name": "KFP_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}],
        "imagePullPolicy": "Always",
        "imagePullSecret": [named("pull", "secretName")],
        "nodeSelector": {"labels": {"pool": "gpu"}},
        "podMetadata": {
            "labels": {
                "app.kubernetes.io/name": "secateur",
                "app.kubernetes.io/component": "work",
                "team": "vision",
            }
        },
        "securityContext": {"runAsNonRoot": True},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    }
    container = spec["deploymentSpec"]["executors"]["exec-work"]["container"]
    assert container["image"] == "registry.example/secateur:7"
    assert container["env"] == [
        {"name": "OMP_NUM_THREADS", "value": "8"},
        {"name": "SECATEUR_DATA", "value": "/data/secateur"},
    ]
    resources = {k: v for k, v in container["resources"].items() if k.startswith("resource")}
    assert resources == {
        "resourceCpuRequest": "8",
        "resourceCpuLimit": "8",
        "resourceMemoryRequest": "64Gi",
        "resourceMemoryLimit": "64Gi",
    }
    assert container["resources"]["accelerator"]["resourceType"] == "amd.com/gpu"
    assert container["resources"]["accelerator"]["resourceCount"] == "2"
    steps = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    assert steps["start"]["retryPolicy"]["maxRetryCount"] == steps["work-2"]["retryPolicy"]["maxRetryCount"] == 5
    assert steps["work-2"]["retryPolicy"]["backoffDuration"] == "10s"


def test_a_step_on_several_machines(tmp_path: Path) -> None:
    cluster = read_cluster(settings=["claim=pictures", "work.nodes=4", "work.gpus=8", "work.cpu=32", "image=i:7"])
    spec, _ = parts(tmp_path, cluster)
    container = spec["deploymentSpec"]["executors"]["exec-work"]["container"]
    told = {entry["name"]: entry["value"] for entry in container["env"]}
    assert told == {
        "SECATEUR_NODES": "4",
        "SECATEUR_NODE_GPUS": "8",
        "SECATEUR_NODE_CPU": "32",
        "SECATEUR_NODE_MEMORY": "4Gi",
        "SECATEUR_SHARED": "pictures",
        "SECATEUR_SHARED_PATH": "/data",
        "SECATEUR_IMAGE": "i:7",
        "SECATEUR_DATA": "/data/secateur",
        "OMP_NUM_THREADS": "1",
    }
    assert "accelerator" not in container["resources"]
    with pytest.raises(InputError, match="claim must name a volume claim that the nodes of a step share, got none"):
        read_cluster(settings=["work.nodes=4"])


def test_a_claim_of_the_default_cluster_is_none(tmp_path: Path) -> None:
    _, kubernetes = parts(tmp_path, read_cluster())
    assert {"pvcMount", "secretAsVolume", "nodeSelector", "tolerations"}.isdisjoint(kubernetes["exec-work"])


def test_finish_ends_every_run(tmp_path: Path) -> None:
    spec, _ = parts(tmp_path, read_cluster())
    task = spec["root"]["dag"]["tasks"]["finish"]
    assert task["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert task["cachingOptions"] == {}
    assert set(spec["root"]["dag"]["tasks"]) == {"finish", "exit-handler-1"}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_name_steps_that_there_are(preset: str) -> None:
    known = {
        task.component_ref.name.removeprefix("comp-").rpartition("-2")[0]
        or task.component_ref.name.removeprefix("comp-")
        for pipeline in (prune_pipeline, sweep_pipeline)
        for dag in [pipeline.pipeline_spec.root.dag, *(c.dag for c in pipeline.pipeline_spec.components.values())]
        for task in dag.tasks.values()
    }
    assert set(PRESETS[preset]) - {ALL} <= known


def test_steps_in_a_pipeline_within_the_pipeline_have_their_places_too(tmp_path: Path) -> None:
    spec, kubernetes = parts(tmp_path, read_cluster(preset="cifar"), sweep_pipeline)
    executors = spec["deploymentSpec"]["executors"]
    assert set(executors) == set(kubernetes)
    assert {name for name, each in executors.items() if "accelerator" in each["container"]["resources"]} == {
        "exec-embed", "exec-warmup", "exec-prune", "exec-compare",
    }  # fmt: skip
    tasks = {k: v for c in spec["components"].values() for k, v in c.get("dag", {}).get("tasks", {}).items()}
    assert tasks["prune"]["retryPolicy"] == tasks["warmup"]["retryPolicy"]


def test_single_settings_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("preset: cifar\nclaim: a\nsteps: {prune: {gpus: 4, memory: 8Gi}, all: {hours: 2, gpus: 0}}\n")
    found = read_cluster(file, ["prune.memory=32Gi", "claim=b", "embed.node_selector={pool: a}", "all.retries=0"])
    assert (found.claim, found.preset) == ("b", "cifar")
    prune, embed = found.step("prune"), found.step("embed")
    assert (prune.gpus, prune.memory, prune.hours, prune.retries) == (4, "32Gi", 2, 0)
    assert (embed.gpus, embed.node_selector, embed.cpu) == (0, {"pool": "a"}, PRESETS["cifar"]["embed"].cpu)
    assert found.step("unheard of") == found.step(ALL)
    assert read_cluster(file, preset="imagenet").preset == "imagenet"


@given(
    cpu=st.integers(1, 512),
    gpus=st.integers(0, 16),
    memory=st.from_regex(r"\A[1-9][0-9]{0,3}(Ki|Mi|Gi|Ti|K|M|G|T)?\Z"),
    hours=st.floats(0.01, 1e4),
    step=st.sampled_from(["prune", "embed", "other", ALL]),
)
def test_a_setting_that_is_written_is_read_back(cpu: int, gpus: int, memory: str, hours: float, step: str) -> None:
    wanted = {"cpu": cpu, "gpus": gpus, "hours": hours}
    settings = [f"{step}.{name}={value!r}" for name, value in wanted.items()] + [f"{step}.memory='{memory}'"]
    found = read_cluster(settings=settings).step(step)
    assert dataclasses.asdict(found) | wanted | {"memory": memory} == dataclasses.asdict(found)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("prune.cpu=0", "cpu must be at least 1, got 0"),
        ("prune.memory=lots", "memory must be a size such as 16Gi, got 'lots'"),
        ("prune.memory=''", "memory must be a size such as 16Gi, got ''"),
        ("prune.hours=0", "hours must be more than 0, got 0"),
        ("prune.tolerations=[{name: gpu}]", "tolerations must hold only effect, key, operator, value, got"),
        ("prune.gpus=true", "prune.gpus must be of the kind int, got True"),
        ("claim=My Claim", "claim must be a name that Kubernetes takes, got 'My Claim'"),
        ("image_pull_policy=Sometimes", "image_pull_policy must be Always, IfNotPresent or Never, got 'Sometimes'"),
        ("steps=1", "cluster must have only image, config_map"),
    ],
)
def test_wrong_settings(text: str, sentence: str) -> None:
    with pytest.raises(InputError) as error:
        read_cluster(settings=[text])
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize("text", ["[1, 2]", "steps: 3", "a: [", "steps: {prune: 3}"])
def test_a_file_of_something_else(tmp_path: Path, text: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match="cluster must be"):
        read_cluster(file)


def test_defaults_are_checked_too() -> None:
    assert Resources() == Resources(memory="4Gi")
    with pytest.raises(InputError):
        dataclasses.replace(Resources(), retries=-1)


def test_a_run_that_fails_still_ends_in_finish(tmp_path: Path, alerts: Alerts) -> None:
    """By kfp.local, which knows exit handlers, and takes no notice of what is for Kubernetes."""
    job = {
        "pipeline": "tests.pipelines.toy_pipeline:toy_on_cluster",
        "arguments": {"mode": "refuse"},
        "cache": None,
        "containers": None,
    }
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "job.json").write_text(json.dumps(job))
    environment = os.environ | step_environment() | {"SECATEUR_ALERT_URL": alerts.url, "SECATEUR_RUN": "run-1"}
    with subprocess.Popen(
        [sys.executable, "-m", "secateur.pipelines.worker", str(tmp_path / "run")],
        stdin=subprocess.PIPE,  # it lives as long as this is open
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        log = process.stdout.read()
    assert process.returncode == 1
    assert "secateur [finish] done" in log
    assert alerts.taken == [{"text": "secateur: run run-1 failed: Task exit-handler-1 failed."}]


def test_the_example_settings_are_ones_that_steps_read() -> None:
    text = (Path(clusters.__file__).parent / "manifests" / "settings.yaml").read_text()
    settings, secret = yaml.safe_load_all(text)
    assert (settings["kind"], secret["kind"]) == ("ConfigMap", "Secret")
    assert {settings["metadata"]["name"]} == {secret["metadata"]["name"]} == {Cluster().config_map}
    assert set(settings["data"]) <= set(clusters.SETTINGS)
    assert set(secret["stringData"]) <= set(clusters.CREDENTIALS)
    assert not any(secret["stringData"].values())


def test_the_rights_are_of_the_account_that_they_name() -> None:
    text = (Path(clusters.__file__).parent / "manifests" / "rbac.yaml").read_text()
    found = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(text)}
    binding = found["RoleBinding", "secateur-steps"]
    assert ("Role", binding["roleRef"]["name"]) in found
    assert [("ServiceAccount", each["name"]) in found for each in binding["subjects"]] == [True]
    verbs = [verb for kind in found if kind[0] == "Role" for rule in found[kind]["rules"] for verb in rule["verbs"]]
    assert "*" not in verbs
