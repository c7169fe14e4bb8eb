"""The commands about what was published: `secateur versions ...`."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from secateur.errors import InputError
from secateur.pipelines.options import names
from secateur.records.places import places

versions = typer.Typer(help="Find, compare, check out, verify and make again what was published.")

RegistryOption = Annotated[
    str,
    typer.Option("--registry", help="git repository of the registry; else SECATEUR_REGISTRY or .secateur"),
]
StoreOption = Annotated[
    str, typer.Option("--store", help="where the registry's store is now, if not where the registry says")
]
TableOption = Annotated[str, typer.Option("--table", help="folder with the data set as a table, if the store lacks it")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]
VersionName = Annotated[str, typer.Argument(metavar="VERSION", help="such as digits/multimodal-0.7/v1")]


def where(given: str) -> str:
    """The registry: as told, else as the environment says, else in the working directory."""
    return given or places().registry


def dump(value: Any) -> None:
    """Print JSON."""
    print(json.dumps(value, indent=1, sort_keys=True))


def show_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose cells are never cut, so that names can be copied from it."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def percent(value: float | None) -> str:
    """A fraction in percent."""
    return "-" if value is None else f"{100 * value:.1f} %"


@versions.command("list")
def list_versions(registry: RegistryOption = "", as_json: JsonOption = False) -> None:
    """List all versions."""
    from secateur.records.registry.catalogue import all_versions
    from secateur.records.registry.repository import absolute, opened

    with opened(absolute(where(registry))) as tree:
        found = all_versions(tree)
    if as_json:
        dump(found)
        return
    show_table(
        ("version", "kept", "accuracy", "mask", "published"),
        [
            (
                facts["version"],
                percent(facts["keep_achieved"]),
                percent(facts["arms"][0]["accuracy_mean"]),
                facts["mask_digest"][:12],
                facts["published"],
            )
            for facts in found
        ],
    )


@versions.command()
def show(version: VersionName, registry: RegistryOption = "", as_json: JsonOption = False) -> None:
    """Show all that a version says of itself: its data card and its model card."""
    from secateur.records.describing import CARDS
    from secateur.records.registry.catalogue import find
    from secateur.records.registry.repository import absolute, opened
    from secateur.records.registry.versions import MASKS

    with opened(absolute(where(registry))) as tree:
        facts = find(tree, version)
        if as_json:
            dump(facts)
            return
        print("\n".join((tree / MASKS / version / card).read_text() for card in CARDS))


@versions.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="a version")],
    second: Annotated[str, typer.Argument(metavar="B", help="another one")],
    gallery: Annotated[str, typer.Option(help="HTML file to write, with the pictures that only one drops")] = "",
    registry: RegistryOption = "",
    store: StoreOption = "",
    table: TableOption = "",
    as_json: JsonOption = False,
) -> None:
    """Compare two versions: what both drop, what only one does, per class and reason; accuracy and cost."""
    from secateur.pipelines import version_diff
    from secateur.records.registry.checkout import open_versions

    if gallery and not gallery.endswith((".html", ".htm")):
        raise InputError(f"gallery must end in .html, got {gallery!r}")
    with open_versions(where(registry), (first, second), store or None) as (a, b):
        compared = version_diff.compare(a, b)
        if gallery:
            version_diff.write_gallery(Path(gallery), compared, a, b, table or None)
    if as_json:
        dump(compared.to_json())
    else:
        version_diff.show(compared)
        if gallery:
            print(f"gallery: {gallery}")


@versions.command()
def checkout(
    version: VersionName,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a new or an empty folder")],
    kind: Annotated[str, typer.Option("--as", help="parquet, folder, webdataset, hf, ids or torch")] = "folder",
    splits: Annotated[str, typer.Option(help="what to write, of train, validation and test, with commas")] = "train",
    registry: RegistryOption = "",
    store: StoreOption = "",
    table: TableOption = "",
) -> None:
    """Write the pruned data set into a folder: the pictures that were kept, without those withdrawn since."""
    from secateur.records.registry.checkout import check_out, check_request, open_version

    check_request(folder, kind, names(splits))
    with open_version(where(registry), version, store or None) as opened:
        says = check_out(opened, folder, kind, names(splits), table or None)
    counts = ", ".join(f"{count:,} {what}" for what, count in says["counts"].items() if count or what != "withdrawn")
    print(f"{version}: {counts} in {folder}")


@versions.command()
def verify(
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="all versions, if none is named")] = "",
    registry: RegistryOption = "",
    store: StoreOption = "",
    tracking_uri: Annotated[
        str, typer.Option(help="MLflow server; else the version's, or for a file of elsewhere MLFLOW_TRACKING_URI")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Check that all that a version names is in git, DVC and MLflow, with the digest it says; exit code 1 if not."""
    from secateur.records.registry.catalogue import forget
    from secateur.records.registry.checkout import open_versions
    from secateur.records.verifying import verify as checks_of

    checks, table = [], ""
    with open_versions(where(registry), [version] if version else [], store or None) as found:
        for one in found:
            if table != one.facts["dataset"]["digest"]:
                forget(one.tree)  # a disk need not hold two data sets
            table = one.facts["dataset"]["digest"]
            for check in checks_of(one, tracking_uri or None):
                checks.append(check)
                if not as_json:
                    print(f"{check.version}  {'ok     ' if check.fine else 'NOT OK '} {check.what}: {check.detail}")
    if as_json:
        dump([dataclasses.asdict(check) for check in checks])
    if not all(check.fine for check in checks):
        raise typer.Exit(1)


@versions.command()
def reproduce(
    version: VersionName,
    registry: RegistryOption = "",
    store: StoreOption = "",
    table: TableOption = "",
    checkpoint: Annotated[str, typer.Option(help="the CLIP's weights, for a version whose CLIP was a file")] = "",
    clip_config: Annotated[str, typer.Option(help="that CLIP's model config (JSON)")] = "",
    prompts: Annotated[str, typer.Option(help="file with the prompts, for a version that had one")] = "",
    as_json: JsonOption = False,
) -> None:
    """Make a version's mask again, from its data, settings, seeds and code; exit code 1 if it comes out different."""
    from secateur.pipelines import reproducing
    from secateur.records.registry.checkout import open_version

    files = {"checkpoint": checkpoint, "clip_config": clip_config, "prompts": prompts}
    with open_version(where(registry), version, store or None) as opened:
        outcome = reproducing.reproduce(opened, table or None, {name: path for name, path in files.items() if path})
    if as_json:
        dump(dataclasses.asdict(outcome))
    else:
        print(outcome.sentence)
    if not outcome.identical:
        raise typer.Exit(1)
