import dataclasses
import difflib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from secateur.components.settings import sentences
from secateur.pipelines.options import PANELS
from secateur.pipelines.prune import prune_pipeline

GOLDEN = Path(__file__).parent / "golden" / "prune.yaml"
RENEW = "SECATEUR_RENEW=1 .venv/bin/pytest tests/pipelines/test_prune_pipeline.py"
NO_CONFIG = {"snapshot", "baselines"}


def compiled(tmp_path: Path, **environment: str) -> str:
    """The YAML that the command line writes."""
    file = tmp_path / "prune.yaml"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SECATEUR_", "KFP_"))}
    command = [str(Path(sys.executable).parent / "secateur"), "compile", "-o", str(file)]
    subprocess.run(command, check=True, capture_output=True, env=inherited | environment)
    return file.read_text()


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    found: dict[str, Any] = next(yaml.safe_load_all(GOLDEN.read_text()))
    return found


def test_the_compiled_pipeline_is_the_golden_one(tmp_path: Path) -> None:
    made = compiled(tmp_path)
    if os.environ.get("SECATEUR_RENEW"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(made)
    if made != GOLDEN.read_text():
        difference = difflib.unified_diff(GOLDEN.read_text().splitlines(), made.splitlines(), "golden", "made", n=1)
        pytest.fail("\n".join([*difference, f"if that is meant, renew it: {RENEW}"]))


def test_the_golden_pipeline_compiles_to_itself(tmp_path: Path) -> None:
    from kfp.compiler import Compiler
    from kfp.components import load_component_from_file

    Compiler().compile(load_component_from_file(str(GOLDEN)), str(tmp_path / "again.yaml"))
    assert (tmp_path / "again.yaml").read_text() == GOLDEN.read_text()


def test_the_image_is_named_in_one_place(tmp_path: Path) -> None:
    made = compiled(tmp_path, SECATEUR_IMAGE="registry.example/secateur:7")
    golden = GOLDEN.read_text()
    assert golden.count("image: ") == 8
    assert made == golden.replace("image: secateur:0.1.0", "image: registry.example/secateur:7")


def defaults() -> dict[str, Any]:
    return {name: spec.default for name, spec in (prune_pipeline.component_spec.inputs or {}).items()}


def test_defaults_and_sentences_are_those_of_the_configs() -> None:
    expected, told = {}, {}
    for config in PANELS.values():
        for field in dataclasses.fields(config):
            expected[field.name] = list(field.default) if isinstance(field.default, tuple) else field.default
        told |= sentences(config)
    inputs = prune_pipeline.component_spec.inputs or {}
    assert {name: spec.default for name, spec in inputs.items() if name not in NO_CONFIG} == expected
    assert {name: spec.description for name, spec in inputs.items() if name not in NO_CONFIG} == told
    assert all(inputs[name].description for name in NO_CONFIG)


def test_no_two_configs_share_a_field() -> None:
    names = [field.name for config in PANELS.values() for field in dataclasses.fields(config)]
    assert sorted(names) == sorted(set(names))


def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    """All tasks that run something, also those in loops, by the name of their component."""
    dags = [spec["root"]["dag"], *(c["dag"] for c in spec["components"].values() if "dag" in c)]
    found = {t["componentRef"]["name"]: t for dag in dags for t in dag["tasks"].values()}
    return {name: task for name, task in found.items() if "for-loop" not in name and "exit-handler" not in name}


def test_every_setting_reaches_its_step(spec: dict[str, Any]) -> None:
    """All but those of the baselines, which have only their method and the budget in common with the pruned arm."""
    for name, task in tasks(spec).items():
        given = set(task["inputs"].get("parameters", {}))
        known = set(spec["components"][name]["inputDefinitions"].get("parameters", {}))
        assert given == ({"method", "keep", "epochs"} if name == "comp-prune-2" else known)


def test_what_is_cached(spec: dict[str, Any]) -> None:
    """All but what has effects elsewhere, and what reads a source that may have changed behind its name."""
    cached = {name for name, task in tasks(spec).items() if task["cachingOptions"].get("enableCache")}
    assert set(tasks(spec)) - cached == {"comp-ingest", "comp-publish", "comp-finish"}


def test_every_step_reads_the_data(spec: dict[str, Any]) -> None:
    """KFP's cache then knows the data by its artifact, whose metadata has the digest."""
    others = set(tasks(spec)) - {"comp-ingest", "comp-finish"}
    assert {n for n in others if "dataset" in tasks(spec)[n]["inputs"]["artifacts"]} == others


def test_every_step_is_tried_again(spec: dict[str, Any]) -> None:
    assert {task["retryPolicy"]["maxRetryCount"] for task in tasks(spec).values()} == {2}


def test_only_evaluate_reads_the_clean_labels(spec: dict[str, Any]) -> None:
    def reads(task: dict[str, Any]) -> set[str]:
        artifacts = task["inputs"].get("artifacts", {}).values()
        return {a.get("taskOutputArtifact", {}).get("outputArtifactKey", "") for a in artifacts}

    assert [name for name, task in tasks(spec).items() if "clean_labels" in reads(task)] == ["comp-evaluate"]
    assert "clean_labels" not in str([c for n, c in spec["components"].items() if "for-loop" in n])
