"""Each component translates: its arguments into one config, its artifacts into paths, and back."""

import dataclasses
import inspect
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Markdown, Metrics, Model, PipelineTaskFinalStatus

from secateur import logs
from secateur.components.compare.component import compare
from secateur.components.embed.component import embed
from secateur.components.evaluate.component import evaluate
from secateur.components.finish.component import finish
from secateur.components.ingest.component import ingest
from secateur.components.prune.component import prune
from secateur.components.publish.component import publish
from secateur.components.record.component import record
from secateur.components.warmup.component import warmup
from secateur.dataset.sources import IngestConfig
from secateur.pruning.config import PruneConfig
from secateur.records.publishing import PublishConfig
from secateur.semantics.config import ClipConfig
from secateur.training.config import TrainConfig

CONFIGS = [
    (ingest, IngestConfig),
    (embed, ClipConfig),
    (warmup, TrainConfig),
    (prune, PruneConfig),
    (publish, PublishConfig),
]
Artifacts = Callable[..., Any]


@pytest.fixture
def artifact(tmp_path: Path) -> Artifacts:
    def make(kind: type[Artifact], name: str, **metadata: Any) -> Artifact:
        return kind(name=name, uri=str(tmp_path / name), metadata=metadata)

    return make


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """How the step named itself in its log."""
    names: list[tuple[str, ...]] = []
    monkeypatch.setattr(logs, "configure", lambda *name: names.append(name))
    return names


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, Any], list[Any]]:
    """Puts something in the place of a library function; gives the list of what it is called with."""

    def replace(module: str, name: str, answer: Any) -> list[Any]:
        calls: list[Any] = []

        def function(*arguments: Any) -> Any:
            calls.append(arguments)
            return answer

        fake = types.ModuleType(module)
        setattr(fake, name, function)
        monkeypatch.setitem(__import__("sys").modules, module, fake)
        return calls

    return replace


@pytest.mark.parametrize(("component", "config"), CONFIGS)
def test_defaults_are_those_of_the_config(component: Any, config: Any) -> None:
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(component.python_func).parameters.items()
    }
    for field in dataclasses.fields(config):
        expected = list(field.default) if isinstance(field.default, tuple) else field.default
        assert defaults[field.name] == expected
        assert type(defaults[field.name]) is type(expected)


def test_a_component_fits_on_a_screen() -> None:
    for component, _ in [*CONFIGS, (evaluate, None), (finish, None)]:
        body = inspect.getsource(component.python_func).split('"""', 2)[2]
        assert len(body.splitlines()) < 40


def test_ingest(artifact: Artifacts, tmp_path: Path) -> None:
    dataset = artifact(Dataset, "dataset")
    shards = ingest.python_func(
        dataset=dataset, clean_labels=artifact(Dataset, "clean_labels"), shards=2, snapshot="monday"
    )
    assert shards == ["shard-00000-of-00002.arrow", "shard-00001-of-00002.arrow"]
    assert all((tmp_path / "dataset" / shard).is_file() for shard in shards)
    info = json.loads((tmp_path / "dataset" / "dataset.json").read_text())
    assert dataset.metadata == {"name": "digits", "digest": info["digest"], "snapshot": "monday"} | info["counts"]
    assert (tmp_path / "clean_labels").is_file()


def test_embed(artifact: Artifacts, replaced: Any, tmp_path: Path, named: list[Any]) -> None:
    calls = replaced("secateur.semantics.embed", "embed_shard", {"pictures": 7})
    embeddings, metrics = artifact(Dataset, "embeddings"), artifact(Metrics, "metrics")
    embed.python_func(
        artifact(Dataset, "dataset"), "shard-1.arrow", embeddings, metrics, clip="ViT-B-32", embed_batch=3
    )
    config = ClipConfig(clip="ViT-B-32", embed_batch=3)
    assert calls == [(str(tmp_path / "dataset"), "shard-1.arrow", config, str(tmp_path / "embeddings"))]
    assert embeddings.metadata == metrics.metadata == {"pictures": 7}
    assert json.loads((tmp_path / "metrics").read_text()) == {"pictures": 7}
    assert named == [("embed", "shard-1.arrow")]


def test_warmup(artifact: Artifacts, replaced: Any, tmp_path: Path) -> None:
    calls = replaced("secateur.training.runs", "warm_up", {"train_loss": 0.5})
    metrics = artifact(Metrics, "metrics")
    seeds: list[Any] = [3.0, 4.0]  # whole numbers come out of a list as floats
    warmup.python_func(artifact(Dataset, "dataset"), artifact(Model, "warm_model"), metrics, seeds=seeds)
    assert calls == [(str(tmp_path / "dataset"), TrainConfig(seeds=(3, 4)), str(tmp_path / "warm_model"))]
    assert [type(seed) for seed in calls[0][1].seeds] == [int, int]
    assert metrics.metadata == json.loads((tmp_path / "metrics").read_text()) == {"train_loss": 0.5}


@pytest.mark.parametrize("shards", [None, ["one", "two"]])
def test_prune(artifact: Artifacts, replaced: Any, tmp_path: Path, named: list[Any], shards: list[str] | None) -> None:
    calls = replaced("secateur.training.runs", "prune", {"keep_achieved": 0.5})
    replaced("secateur.pruning.mask", "read_mask", types.SimpleNamespace(digest="d1"))
    mask = artifact(Dataset, "mask")
    prune.python_func(
        artifact(Dataset, "dataset", digest="d0"), artifact(Model, "warm_model"), artifact(Model, "model"), mask,
        artifact(Metrics, "metrics"), shards and [artifact(Dataset, s) for s in shards], method="adaptive", keep=0.5,
    )  # fmt: skip
    folders = [str(tmp_path / shard) for shard in shards or []]
    config = PruneConfig(method="adaptive", keep=0.5)
    assert calls == [
        (str(tmp_path / "dataset"), folders, str(tmp_path / "warm_model"), config, str(tmp_path / "model"),
         str(tmp_path / "mask")),
    ]  # fmt: skip
    assert mask.metadata == {"digest": "d1", "dataset": "d0", "method": "adaptive"}
    assert json.loads((tmp_path / "metrics").read_text()) == {"keep_achieved": 0.5}
    assert named == [("prune", "adaptive 0.5")]


def test_evaluate(artifact: Artifacts, replaced: Any, tmp_path: Path) -> None:
    found = types.SimpleNamespace(
        arms=[types.SimpleNamespace(accuracy_mean=0.9)],
        mask_digest="d1",
        confusion=((3, 1), (0, 2)),
        dataset={"classes": ("cat", "dog")},
    )
    calls = replaced("secateur.evaluation.runs", "evaluate", found)
    names = {"dataset": Dataset, "clean_labels": Dataset, "model": Model, "mask": Dataset}
    outputs = {"results": Metrics, "confusion": ClassificationMetrics, "report": HTML, "summary": Markdown}
    made = {name: artifact(kind, name) for name, kind in (names | outputs).items()}
    evaluate.python_func(**made, baselines=[artifact(Model, "full")])
    inputs = [str(tmp_path / name) for name in names]
    files = [str(tmp_path / name) for name in ("results.json", "report.html", "summary.md")]
    assert calls == [(*inputs, [str(tmp_path / "full")], *files)]
    assert made["results"].metadata == {"accuracy": 0.9, "mask": "d1"}
    matrix = made["confusion"].metadata["confusionMatrix"]
    assert [c["displayName"] for c in matrix["annotationSpecs"]] == ["cat", "dog"]
    assert [row["row"] for row in matrix["rows"]] == [[3, 1], [0, 2]]
    assert Path(made["confusion"].path).is_file()  # or KFP's cache would never know the step again


def test_publish(artifact: Artifacts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[Any] = []

    def function(*arguments: Any) -> Any:
        calls.append(arguments)
        return types.SimpleNamespace(version="digits/v1", run_id="f00", mask_digest="d1", promotion="no")

    monkeypatch.setattr("secateur.records.publishing.publish", function)
    names = {
        "dataset": Dataset, "model": Model, "mask": Dataset, "results": Metrics, "report": HTML, "summary": Markdown,
    }  # fmt: skip
    made = {name: artifact(kind, name) for name, kind in names.items()}
    lists = {"baselines": [artifact(Model, "full")], "embedded": [artifact(Metrics, "shard", pictures=3)]}
    assert publish.python_func(**made, **lists, model_name="mine", promote_loss=0.5) == ("digits/v1", "f00", "d1", "no")
    config = PublishConfig("mine", promote_loss=0.5)
    paths = [str(tmp_path / name) for name in names]
    assert calls == [(config, *paths, [str(tmp_path / "full")], [{"pictures": 3}])]


def test_compare(artifact: Artifacts, replaced: Any, tmp_path: Path) -> None:
    arm = types.SimpleNamespace(label="random, keep 0.5", arm=types.SimpleNamespace(accuracy_mean=0.9))
    calls = replaced("secateur.evaluation.comparison", "compare", types.SimpleNamespace(arms=[arm]))
    names = {"dataset": Dataset, "clean_labels": Dataset, "results": Metrics, "report": HTML, "summary": Markdown}
    made = {name: artifact(kind, name) for name, kind in names.items()}
    compare.python_func(**made, models=[artifact(Model, "model")], masks=[artifact(Dataset, "mask")])
    files = [str(tmp_path / name) for name in ("results.json", "report.html", "summary.md")]
    folders = [str(tmp_path / name) for name in ("dataset", "clean_labels")]
    assert calls == [(*folders, [str(tmp_path / "model")], [str(tmp_path / "mask")], *files)]
    assert made["results"].metadata == {"random, keep 0.5": 0.9}


def test_record(artifact: Artifacts, replaced: Any, tmp_path: Path) -> None:
    calls = replaced("secateur.records.sweeping", "record_sweep", "f00")
    names = {"dataset": Dataset, "results": Metrics, "report": HTML, "summary": Markdown}
    made = {name: artifact(kind, name) for name, kind in names.items()}
    lists = {"models": [artifact(Model, "model")], "embedded": [artifact(Metrics, "shard", pictures=3)]}
    assert record.python_func(**made, **lists) == "f00"
    data, *files = (str(tmp_path / name) for name in names)
    assert calls == [(data, [str(tmp_path / "model")], *files, [{"pictures": 3}])]


def test_finish(artifact: Artifacts, replaced: Any, tmp_path: Path) -> None:
    calls = replaced("secateur.records.tracking.finishing", "finish", "failed")
    status = PipelineTaskFinalStatus("FAILED", "run-1", "exit-handler-1", 9, None)
    assert finish.python_func(status, artifact(Markdown, "summary")) == "failed"
    assert calls == [("FAILED", "", str(tmp_path / "summary.md"))]
