"""The commands about the registry itself: `secateur registry ...`."""

import dataclasses
from typing import Annotated

import typer

from secateur.pipelines.versions import JsonOption, RegistryOption, StoreOption, dump, show_table, where

registry = typer.Typer(help="Make a registry, or withdraw a picture from it.")


@registry.command()
def init(
    place: Annotated[
        str, typer.Argument(metavar="PATH_OR_URL", help="of the git repository; made if it is a new path")
    ],
    store: Annotated[
        str,
        typer.Option(help="DVC remote for the data: a folder, s3://, gs://, azure:// or ssh://; else beside it"),
    ] = "",
) -> None:
    """Make a registry: a git repository with DVC in it."""
    from secateur.records.git import without_credentials
    from secateur.records.registry.catalogue import all_versions
    from secateur.records.registry.repository import check_store, open_or_create, opened

    location = open_or_create(place, store or None)
    with opened(location) as tree:
        if store:
            check_store(tree, store)
        known = len(all_versions(tree))
    print(f"{without_credentials(location)}: a registry with {known} versions")


@registry.command()
def withdraw(
    sample_id: Annotated[str, typer.Argument(metavar="ID", help="sample id of the picture")],
    reason: Annotated[str, typer.Option(help="for whoever reads the registry")] = "",
    registry: RegistryOption = "",
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Leave a picture out of every later checkout, and say which versions and models held it."""
    from secateur.records.registry import withdrawal

    held = withdrawal.withdraw(where(registry), sample_id, reason, store or None)
    if as_json:
        dump([dataclasses.asdict(entry) for entry in held])
        return
    print(f"{sample_id} is withdrawn from every later checkout.")
    if not held:
        return
    print("These versions held it:")
    rows = [(entry.version, entry.role, str(entry.epochs), entry.model) for entry in held]
    show_table(("version", "as", "epochs trained on it", "model"), rows)
    print("Their networks have seen it as often as said, and the store still holds its bytes.")
