"""Each component's metadata and README say what the component says."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp.dsl.base_component import BaseComponent

from secateur.components.compare.component import compare
from secateur.components.embed.component import embed
from secateur.components.evaluate.component import evaluate
from secateur.components.finish.component import finish
from secateur.components.ingest.component import ingest
from secateur.components.prune.component import prune
from secateur.components.publish.component import publish
from secateur.components.record.component import record
from secateur.components.warmup.component import warmup

COMPONENTS = {c.name: c for c in (ingest, embed, warmup, prune, evaluate, publish, finish, compare, record)}
ROOM = Path(__file__).parents[2] / "components"
RENEW = "SECATEUR_RENEW=1 .venv/bin/pytest tests/components/test_documents.py"


def kind(spec: Any) -> str:
    name = spec.type.partition("@")[0].removeprefix("system.").replace("typing.List[str]", "list of String")
    return f"list of {name}" if spec.is_artifact_list else name


def arguments(component: BaseComponent) -> list[dict[str, Any]]:
    return [
        {"name": name, "type": kind(spec), "description": spec.description}
        | ({"default": spec.default} if spec.optional else {})
        for name, spec in (component.component_spec.inputs or {}).items()
    ]


def results(component: BaseComponent) -> list[dict[str, Any]]:
    return [
        {"name": name, "type": kind(spec), "description": spec.description}
        for name, spec in (component.component_spec.outputs or {}).items()
    ]


def tables(component: BaseComponent) -> str:
    lines = ["## Inputs", "", "| name | type | default | |", "| --- | --- | --- | --- |"]
    for a in arguments(component):
        default = f"`{a['default']!r}`" if "default" in a else ""
        lines.append(f"| `{a['name']}` | {a['type']} | {default} | {a['description']} |")
    lines += ["", "## Outputs", "", "| name | type | |", "| --- | --- | --- |"]
    lines += [f"| `{r['name']}` | {r['type']} | {r['description']} |" for r in results(component)]
    return "\n".join([*lines, ""])


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_input_and_output_is_described(name: str) -> None:
    described = [*arguments(COMPONENTS[name]), *results(COMPONENTS[name])]
    assert [entry["name"] for entry in described if not entry["description"]] == []


@pytest.mark.parametrize("name", COMPONENTS)
def test_metadata_is_the_components_own(name: str) -> None:
    path, component = ROOM / name / "metadata.yaml", COMPONENTS[name]
    written = yaml.safe_load(path.read_text())
    expected = written | {
        "name": name,
        "description": component.description.splitlines()[0],
        "inputs": arguments(component),
        "outputs": results(component),
    }
    if os.environ.get("SECATEUR_RENEW"):
        path.write_text(yaml.safe_dump(expected, sort_keys=False, width=120))
    assert yaml.safe_load(path.read_text()) == expected, f"renew it: {RENEW}"
    assert {"stability", "dependencies", "tags", "lastVerified"} <= set(written)


@pytest.mark.parametrize("name", COMPONENTS)
def test_readme_lists_the_components_arguments(name: str) -> None:
    path = ROOM / name / "README.md"
    text = path.read_text()
    before, after = text[: text.index("## Inputs")], text[text.index("## Example") :]
    expected = f"{before}{tables(COMPONENTS[name])}\n{after}"
    if os.environ.get("SECATEUR_RENEW"):
        path.write_text(expected)
    assert path.read_text() == expected, f"renew it: {RENEW}"
