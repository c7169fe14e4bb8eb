import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import mlflow
import numpy as np
import pytest
import torch
from made_outputs import CLASSES, TRAIN, Outputs
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from test_at_once import in_child

from secateur.errors import InputError
from secateur.files import read_json, write_json
from secateur.pruning.mask import read_mask
from secateur.records import publishing
from secateur.records.git import git
from secateur.records.outputs import code_version
from secateur.records.places import places
from secateur.records.publishing import PublishConfig, Published, publish
from secateur.records.registry.checkout import open_version
from secateur.records.registry.versions import Version
from secateur.records.tracking import delivery, runs, spool
from secateur.records.tracking.facts import arm_key, curve_points
from secateur.records.tracking.runs import open_run
from secateur.records.tracking.sending import sync
from secateur.records.verifying import verify
from secateur.training.saved import load_network


@contextmanager
def no_export(*arguments: Any) -> Iterator[Callable[[], Path]]:
    """In the place of a real export, which takes ten seconds."""
    folder = Path(arguments[-1])
    folder.mkdir(parents=True)
    (folder / "model.pt2").write_bytes(b"a program")
    np.save(folder / "example.npy", np.zeros((2, 3, 8, 8), np.float32))
    write_json(folder / "export.json", {"classes": 3, "torch": torch.__version__})
    yield lambda: folder


@pytest.fixture
def quick(store: str, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Publishing without a real network, in a working directory of its own."""
    monkeypatch.setattr(publishing, "exporting", no_export)
    return MlflowClient(store, store)


def artifacts(client: MlflowClient, run_id: str, folder: str | None = None) -> set[str]:
    return {entry.path for entry in client.list_artifacts(run_id, folder)}


def test_digest_of_pulled_mask_is_the_one_in_mlflow(published: tuple[Path, Published]) -> None:
    work, made = published
    subprocess.run(["git", "clone", "--quiet", made.registry, str(work / "copy")], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "pull", "--quiet"], cwd=work / "copy", check=True)
    tags = MlflowClient(made.tracking_uri).get_run(made.run_id).data.tags
    folder = work / "copy" / "masks" / tags["registry_version"]
    assert read_mask(folder).digest == tags["mask_digest"] == made.mask_digest
    assert (tags["registry_version"], made.created) == ("my-pets/multimodal-0.7/v1", True)
    assert tags["registry"] == made.registry == str(work / ".secateur" / "registry.git")


def test_a_version_says_where_it_came_from(published: tuple[Path, Published], outputs: Outputs) -> None:
    _, made = published
    says = json.loads(git("show", f"main:masks/{made.version}/version.json", folder=made.registry))
    meta = outputs.mask.meta
    assert says["dataset"].items() >= meta["dataset"].items()
    assert (says["arms"][0]["accuracy_mean"], says["reasons"]) == (pytest.approx(0.85), outputs.mask.reasons)
    assert (
        says.items()
        >= {
            "schema_version": 2,
            "version": made.version,
            "mask_digest": outputs.digest,
            "method": "multimodal",
            "keep_requested": 0.7,
            "keep_achieved": meta["keep_achieved"],
            "config": {"method": "multimodal", "keep": 0.7, "rate": 0.5},
            "train_config": {"model": "convnet", "batch_size": 4, "seeds": [3, 4]},
            "seed": 3,
            "seeds": [3, 4],
            "mlflow": {
                "run_id": made.run_id,
                "model_uri": f"runs:/{made.run_id}/model",
                "tracking_uri": made.tracking_uri,
            },
            "code_version": code_version(),
            "versions": {"secateur": "0.1.0"},
        }.items()
    )


def test_a_run_holds_params_curves_figures_and_data(published: tuple[Path, Published], outputs: Outputs) -> None:
    _, made = published
    client = MlflowClient(made.tracking_uri)
    run = client.get_run(made.run_id)
    assert run.info.status == "FINISHED"
    assert run.inputs is not None
    assert (run.data.params["method"], run.data.params["rate"]) == ("multimodal", "0.5")
    assert run.data.metrics["test_accuracy"] == pytest.approx(0.85)
    assert run.data.metrics["test_accuracy_random"] == pytest.approx(0.65)
    assert run.data.metrics["ingest/train"] == TRAIN
    assert client.get_metric_history(made.run_id, "kept/seed-3") == []  # an arm's curves are its own run's
    warm = client.get_metric_history(made.run_id, "warmup/kept/seed-3")
    assert [(m.step, m.value) for m in warm] == [(1, 1.0)]
    (arm,) = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{made.run_id}'")
    assert (arm.info.run_name, arm.info.status) == ("multimodal-0.7", "FINISHED")
    assert (arm.data.params["rate"], arm.data.metrics["test_accuracy"]) == ("0.5", pytest.approx(0.85))
    curve = client.get_metric_history(arm.info.run_id, "kept/seed-3")
    assert [(m.step, m.value) for m in curve] == [(1, 1.0), (2, 0.7), (3, 0.7)]
    assert [m.timestamp - arm.info.start_time for m in curve] == [500, 1500, 2500]
    (dataset,) = [entry.dataset for entry in run.inputs.dataset_inputs]
    digest = outputs.mask.meta["dataset"]["digest"]
    assert (dataset.name, dataset.digest) == ("my pets", digest[:32])
    assert run.data.tags["data_digest"] == digest
    assert run.data.tags["mlflow.note.content"] == "# a summary\n"
    assert json.loads(run.data.tags["alarms"]) == ["scores do not discriminate"]


def test_documents_have_names_that_a_browser_knows(published: tuple[Path, Published], outputs: Outputs) -> None:
    _, made = published
    client = MlflowClient(made.tracking_uri)
    assert artifacts(client, made.run_id) == {
        "DATA_CARD.md", "MODEL_CARD.md", "gate.json", "mask", "report.html", "results.json", "run.json", "summary.md",
    }  # fmt: skip
    assert artifacts(client, made.run_id, "mask") == {"mask/mask.parquet", "mask/trajectory.parquet"}
    report = mlflow.artifacts.download_artifacts(
        run_id=made.run_id, artifact_path="report.html", tracking_uri=made.tracking_uri
    )
    assert Path(report).read_bytes() == outputs.files["report_file"].read_bytes()


def test_the_model_comes_back_with_the_same_logits(
    published: tuple[Path, Published], outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, made = published
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.tracking_uri)
    pictures = torch.rand(5, 3, 8, 8)
    expected = load_network(outputs.files["model_folder"], 3)(pictures).detach()
    for uri in ("models:/my-pets-convnet@champion", f"runs:/{made.run_id}/model"):
        torch.testing.assert_close(mlflow.pytorch.load_model(uri)(pictures), expected)
    served = mlflow.pyfunc.load_model("models:/my-pets-convnet@champion")
    np.testing.assert_allclose(served.predict(pictures.numpy()), expected.numpy(), rtol=1e-4, atol=1e-5)
    assert served.metadata.signature.inputs.inputs[0].shape == (-1, 3, 8, 8)
    assert served.metadata.signature.outputs.inputs[0].shape == (-1, len(CLASSES))
    assert served.input_example.shape == (2, 3, 8, 8)
    assert served.metadata.run_id == made.run_id


def test_nothing_is_pickled(published: tuple[Path, Published]) -> None:
    # MLflow's loader, which the test above uses, also looks into the program itself.
    work, _ = published
    names = {file.name for file in (work / ".secateur" / "mlartifacts").rglob("*") if file.is_file()}
    assert "model.pt2" in names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pth", ".pt", ".bin"))]
    assert "pickle_module_info.txt" not in names


def test_running_a_step_again_makes_nothing_new(
    quick: MlflowClient, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", open_run(places(), "pipeline").run_id)
    first = publish(PublishConfig(), **outputs.files)
    refs, run = git("show-ref", folder=first.registry), quick.get_run(first.run_id).to_dictionary()
    second = publish(PublishConfig(), **outputs.files)
    assert (second.version, second.run_id, second.created) == (first.version, first.run_id, False)
    assert git("show-ref", folder=first.registry) == refs
    assert quick.get_run(first.run_id).to_dictionary() == run
    assert len(quick.search_model_versions("name='my-pets-convnet'")) == 1


def test_another_pipeline_run_with_the_same_mask_shares_the_version(quick: MlflowClient, outputs: Outputs) -> None:
    first, second = (publish(PublishConfig(model_name="pets"), **outputs.files) for _ in range(2))
    assert first.run_id != second.run_id
    assert (first.version, first.created) == (second.version, True)
    assert not second.created
    assert git("tag", folder=first.registry).split() == [first.version]
    assert quick.get_run(second.run_id).data.tags["registry_version"] == first.version
    assert quick.get_model_version_by_alias("pets", "champion").run_id == second.run_id
    assert list(quick.get_registered_model("pets").aliases) == ["champion"]
    assert second.promotion == "became champion: test accuracy is 85.0%, the champion's is 85.0%"


def test_a_step_that_failed_in_the_middle_goes_on(
    quick: MlflowClient, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", open_run(places(), "pipeline").run_id)
    with monkeypatch.context() as broken:
        broken.setattr(runs, "set_tags", Mock(side_effect=MlflowException("gone")))
        with pytest.raises(MlflowException, match="gone"):
            publish(PublishConfig(), **outputs.files)
    run_id = places().run_id
    assert run_id is not None
    assert "registry_version" not in quick.get_run(run_id).data.tags
    assert quick.get_run(run_id).info.status == "RUNNING"  # whoever began it may try again
    made = publish(PublishConfig(), **outputs.files)
    assert (made.run_id, made.version) == (run_id, "my-pets/multimodal-0.7/v1")
    assert len(quick.get_metric_history(run_id, "warmup/kept/seed-3")) == 1
    assert len(quick.get_metric_history(run_id, "test_accuracy")) == 1
    assert made.promotion == "became champion: it is the champion already"
    assert len(quick.search_model_versions("name='my-pets-convnet'")) == 1


def test_a_run_of_its_own_that_fails_says_so(
    quick: MlflowClient, outputs: Outputs, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "publish_mask", Mock(side_effect=InputError("no")))
    with pytest.raises(InputError, match="no"):
        publish(PublishConfig(), **outputs.files)
    (run,) = quick.search_runs([e.experiment_id for e in quick.search_experiments()])
    assert run.info.status == "FAILED"
    assert "registry_version" not in run.data.tags


def test_a_run_that_somebody_else_began_is_told_all_and_left_for_its_owner_to_end(
    quick: MlflowClient, outputs: Outputs, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = quick.create_experiment("theirs", (workplace / "theirs").as_uri())
    theirs = quick.create_run(experiment, run_name="theirs").info.run_id
    child = quick.create_run(experiment, tags={"mlflow.parentRunId": theirs}).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs)
    monkeypatch.setenv("SECATEUR_RUN", "run-1")
    made = publish(PublishConfig(), **outputs.files)
    found = quick.get_run(theirs)
    assert (made.run_id, found.info.status, quick.get_run(child).info.status) == (theirs, "RUNNING", "RUNNING")
    assert (found.info.run_name, found.data.params["method"]) == ("theirs", "multimodal")
    assert found.data.metrics["test_accuracy"] == pytest.approx(0.85)
    assert found.data.tags["registry_version"] == made.version
    assert "mask" in artifacts(quick, theirs)
    (arm,) = quick.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{theirs}' and tags.`secateur.arm` LIKE '%'")
    assert arm.info.status == "FINISHED"
    assert not open_run(places(), "").ours  # also when looked at again


def test_a_version_whose_publisher_was_killed_after_the_push_gets_all_that_it_names(
    published: tuple[Path, Published], store: str, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    (program,) = (published[0] / ".secateur" / "mlartifacts").rglob("model.pt2")

    @contextmanager
    def exported_before(*arguments: Any) -> Iterator[Callable[[], Path]]:
        with no_export(*arguments) as exported:
            shutil.copyfile(program, exported() / "model.pt2")
            yield exported

    def wrong(name: str) -> list[str]:
        with open_version(places().registry, name) as version:
            return [check.what for check in verify(version, store) if not check.fine]

    def killed() -> None:
        monkeypatch.setattr(delivery, "send_bundle", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        publish(PublishConfig(), **outputs.files)

    monkeypatch.setattr(publishing, "exporting", exported_before)
    monkeypatch.setenv("SECATEUR_RUN", "run-1")
    assert in_child(killed) == -signal.SIGKILL
    name = git("tag", folder=places().registry)
    assert wrong(name) == ["run", "run's mask", "model"]

    monkeypatch.setenv("SECATEUR_RUN", "run-2")
    second = publish(PublishConfig(), **outputs.files)
    assert (second.version, second.created) == (name, False)
    assert wrong(name) == []
    client = MlflowClient(store, store)
    first = open_run(replace(places(), key="run-1"), "").run_id
    assert client.get_run(first).data.tags["secateur.completed_by"] == second.run_id
    assert client.get_run(first).data.metrics == {}  # those figures are the second run's

    monkeypatch.setenv("SECATEUR_RUN", "run-1")  # its step is tried again after all
    assert publish(PublishConfig(), **outputs.files).run_id == first
    found = client.get_run(first)
    assert (found.info.status, found.data.metrics["test_accuracy"]) == ("FINISHED", pytest.approx(0.85))
    assert wrong(name) == []


def test_only_a_run_with_the_same_model_is_completed() -> None:
    says = {"mlflow": {"run_id": "first"}, "model": {"weights": "w"}}
    version = Version("pets/v1", "m", created=False, says=says)
    assert publishing.other_run(version, says | {"mlflow": {"run_id": "second"}}) == "first"
    assert publishing.other_run(version, says) == ""
    assert publishing.other_run(version, {"mlflow": {"run_id": "second"}, "model": {"weights": "v"}}) == ""
    assert publishing.other_run(Version("pets/v1", "m", created=True), says) == ""


def test_one_run_publishes_one_mask(
    quick: MlflowClient, outputs: Outputs, other_outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", open_run(places(), "pipeline").run_id)
    publish(PublishConfig(), **outputs.files)
    with pytest.raises(InputError, match="MLFLOW_RUN_ID must be a run that publishes one mask"):
        publish(PublishConfig(), **other_outputs.files)


def test_an_unknown_run_is_said(quick: MlflowClient, outputs: Outputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(InputError, match="MLFLOW_RUN_ID must be a run of the store"):
        publish(PublishConfig(), **outputs.files)


def test_a_server_away_is_said_before_anything_is_written(
    workplace: Path, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="tracking_uri must be a server that answers"):
        publish(PublishConfig(), **outputs.files)
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize("part", ["mask_folder", "results_file", "dataset_folder"])
def test_parts_of_another_run_are_refused_before_anything_is_written(
    quick: MlflowClient, outputs: Outputs, other_outputs: Outputs, workplace: Path, tmp_path: Path, part: str
) -> None:
    files = outputs.files | {part: other_outputs.files[part]}
    if part == "dataset_folder":
        files[part] = Path(shutil.copytree(outputs.files[part], tmp_path / "data"))
        info = read_json(files[part] / "dataset.json")
        write_json(files[part] / "dataset.json", info | {"digest": "0" * 64})
    with pytest.raises(InputError, match=r"must be of (mask|data set) \w{12}, got \w{12}"):
        publish(PublishConfig(), **files)
    assert not (workplace / ".secateur" / "registry.git").exists()
    assert quick.get_experiment_by_name("secateur") is None


def test_a_folder_without_a_model_is_said(quick: MlflowClient, outputs: Outputs, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model must be a folder with run\.json"):
        publish(PublishConfig(), **outputs.files | {"model_folder": tmp_path})


@pytest.mark.parametrize("name", ["a/b", "a:b", "ada's", 'a"b'])
def test_a_model_name_that_mlflow_refuses_is_said(name: str) -> None:
    with pytest.raises(InputError, match="model_name must be without"):
        PublishConfig(model_name=name)


def test_no_secret_is_kept(
    quick: MlflowClient, outputs: Outputs, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN"):
        monkeypatch.setenv(name, "hunter2-in-the-environment")
    made = publish(PublishConfig(), **outputs.files)
    kept = [f for f in (workplace / ".secateur").rglob("*") if f.is_file() and "objects" not in f.parts]
    assert not [f for f in kept if b"hunter2" in f.read_bytes()]
    everything = git("log", "--all", "--patch", folder=made.registry)
    assert made.mask_digest in everything
    assert "hunter2" not in everything


def test_a_registry_url_is_shown_without_its_password(
    quick: MlflowClient, outputs: Outputs, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{workplace}/.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://example.org/")
    git("init", "--quiet", "--bare", "registry.git")
    monkeypatch.setenv("SECATEUR_REGISTRY", "https://ada:hunter2@example.org/registry.git")
    monkeypatch.setenv("SECATEUR_STORE", str(workplace / "store"))
    made = publish(PublishConfig(), **outputs.files)
    assert made.registry == "https://example.org/registry.git"
    assert quick.get_run(made.run_id).data.tags["registry"] == made.registry
    assert git("tag", folder="registry.git") == made.version


def test_a_candidate_that_breaks_a_rule_is_no_champion(
    quick: MlflowClient, outputs: Outputs, other_outputs: Outputs
) -> None:
    first = publish(PublishConfig(), **outputs.files)
    worse = read_json(other_outputs.files["results_file"])
    worse["arms"][0]["accuracy_mean"] = 0.7
    results = other_outputs.folder / "worse"
    write_json(results, worse)
    second = publish(PublishConfig(), **other_outputs.files | {"results_file": results})
    assert second.promotion == (
        "stays candidate: test accuracy is 70.0%, 15.0 points below the champion's, more than 1.0"
    )
    assert quick.get_model_version_by_alias("my-pets-convnet", "champion").run_id == first.run_id
    candidate = quick.get_model_version_by_alias("my-pets-convnet", "candidate")
    assert (candidate.run_id, candidate.tags["promotion"]) == (second.run_id, second.promotion)
    tags = quick.get_run(second.run_id).data.tags
    assert (tags["promoted"], tags["promotion"]) == ("false", second.promotion)
    said = runs.read_artifact(quick, second.run_id, "gate.json")
    assert said is not None
    assert (said["candidate"]["accuracy"], said["champion"]["candidate"]["accuracy"]) == (0.7, pytest.approx(0.85))
    third = publish(PublishConfig(promote_loss=0.2), **other_outputs.files | {"results_file": results})
    assert third.promotion.startswith("became champion: test accuracy is 70.0%")


def test_what_steps_told_before_is_there_once_and_what_they_did_not_is_added(
    quick: MlflowClient, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECATEUR_RUN", "run-1")
    run = open_run(places(), "a run")
    config = read_json(outputs.files["model_folder"] / "run.json")["prune_config"]
    arm = runs.open_arm(run, arm_key(config), "multimodal-0.7")
    history = read_json(outputs.files["model_folder"] / "seed-3" / "history.json")
    runs.log_metrics(arm, curve_points({3: history[:2]}), {})
    made = publish(PublishConfig(), **outputs.files, embed_figures=[{"pictures": 5}, {"pictures": 7}])
    assert made.run_id == run.run_id
    for seed in (3, 4):
        curve = quick.get_metric_history(arm.run_id, f"kept/seed-{seed}")
        assert [(m.step, m.value) for m in curve] == [(1, 1.0), (2, 0.7), (3, 0.7)]
    shards = quick.get_metric_history(run.run_id, "embed/pictures")
    assert [(m.step, m.value) for m in shards] == [(0, 5.0), (1, 7.0)]
    assert len(quick.search_runs([run.experiment_id])) == 2
    assert quick.get_run(run.run_id).data.tags["secateur.run"] == "run-1"


def test_with_mlflow_away_the_version_is_published_and_the_rest_is_sent_later(
    quick: MlflowClient, store: str, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECATEUR_RUN", "run-1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    folder = spool.begin(places(), "a run")
    run = open_run(places(), "a run")
    spool.note_run(folder, run.run_id)
    with monkeypatch.context() as away:
        away.setattr(delivery, "check_server", Mock(side_effect=InputError("away")))
        made = publish(PublishConfig(), **outputs.files)
    assert (made.run_id, made.created) == (run.run_id, True)
    assert made.promotion.startswith("undecided: MLflow is away")
    assert git("tag", folder=made.registry) == made.version
    assert quick.get_run(run.run_id).data.metrics == {}
    assert spool.waiting(folder) == 1
    write_json(folder / spool.STATUS_FILE, {"status": "FINISHED"})
    assert sync(folder.parent) == (1, [])
    found = quick.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.tags["registry_version"] == made.version
    assert found.data.metrics["test_accuracy"] == pytest.approx(0.85)
    assert quick.get_model_version_by_alias("my-pets-convnet", "champion").run_id == run.run_id
    assert not folder.exists()
