"""The compiled sweep: what it shares with the pipeline that prunes, and that every setting reaches its step."""

import ast
import dataclasses
import difflib
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp.compiler import Compiler

from secateur.components.settings import sentences
from secateur.pipelines.sweep import CONFIGS, VARIED, sweep_pipeline

GOLDEN = Path(__file__).parent / "golden" / "sweep.yaml"
RENEW = "SECATEUR_RENEW=1 .venv/bin/pytest tests/pipelines/test_sweep.py"


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    found: dict[str, Any] = next(yaml.safe_load_all(GOLDEN.read_text()))
    return found


def steady(text: str) -> str:
    """The same with sorted keys in KFP's comment on the default arms, whose order changes from process to process."""

    def arranged(match: re.Match[str]) -> str:
        return match[1] + str([dict(sorted(arm.items())) for arm in ast.literal_eval(match[2])]) + "]"

    return re.sub(r"^(#    arms: list \[Default: )(.*)\]$", arranged, text, flags=re.MULTILINE)


def test_the_compiled_sweep_is_the_golden_one(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    Compiler().compile(sweep_pipeline, str(file))
    made = steady(file.read_text())
    if os.environ.get("SECATEUR_RENEW"):
        GOLDEN.write_text(made)
    if made != GOLDEN.read_text():
        difference = difflib.unified_diff(GOLDEN.read_text().splitlines(), made.splitlines(), "golden", "made", n=1)
        pytest.fail("\n".join([*difference, f"if that is meant, renew it: {RENEW}"]))


def test_defaults_and_sentences_are_those_of_the_configs() -> None:
    inputs = sweep_pipeline.component_spec.inputs or {}
    for config in CONFIGS:
        for field in dataclasses.fields(config):
            if field.name in VARIED:
                assert field.name not in inputs
                continue
            expected = list(field.default) if isinstance(field.default, tuple) else field.default
            assert inputs[field.name].default == expected
            assert inputs[field.name].description == sentences(config)[field.name]
    assert all(inputs[name].description for name in ("arms", "snapshot"))


def test_every_setting_reaches_its_step(spec: dict[str, Any]) -> None:
    dags = [spec["root"]["dag"], *(c["dag"] for c in spec["components"].values() if "dag" in c)]
    tasks = {t["componentRef"]["name"]: t for dag in dags for t in dag["tasks"].values()}
    for name in ("ingest", "embed", "warmup", "prune"):
        known = set(spec["components"][f"comp-{name}"]["inputDefinitions"]["parameters"])
        assert set(tasks[f"comp-{name}"]["inputs"]["parameters"]) == known
    loop = tasks["comp-prune"]["inputs"]["parameters"]
    for name in VARIED:
        assert loop[name]["parameterExpressionSelector"] == f'parseJson(string_value)["{name}"]'


def test_ingest_embed_and_warmup_are_shared_and_everything_is_cached_but_the_record(spec: dict[str, Any]) -> None:
    root = spec["root"]["dag"]["tasks"]
    assert list(root) == ["compare", "for-loop-1", "ingest", "record", "secateur-arms", "warmup"]
    assert not root["record"]["cachingOptions"].get("enableCache")
    assert all(root[name]["cachingOptions"]["enableCache"] for name in ("ingest", "warmup", "compare"))
