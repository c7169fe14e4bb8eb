"""A registry with versions of small runs, published without MLflow."""

from pathlib import Path

from made_outputs import Outputs

from secateur.records.describing import describe, make_cards
from secateur.records.outputs import read_outputs
from secateur.records.registry.repository import open_or_create
from secateur.records.registry.versions import Version, publish_mask


def publish_version(location: str, outputs: Outputs, *, pictures: bool = True, run_id: str = "f00") -> Version:
    read = read_outputs(**outputs.files)
    said = describe(read, outputs.files["dataset_folder"], run_id, "http://ada:hunter2@example.org:5000")
    return publish_mask(
        location,
        outputs.files["mask_folder"],
        read.line,
        said,
        cards=make_cards(said),
        dataset_folder=outputs.files["dataset_folder"],
        pictures=pictures,
    )


def make_registry(folder: Path, *published: Outputs, pictures: bool = True) -> str:
    location = open_or_create(folder / "registry.git")
    for outputs in published:
        publish_version(location, outputs, pictures=pictures)
    return location
