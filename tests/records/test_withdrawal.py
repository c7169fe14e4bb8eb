import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_outputs import Outputs
from made_registry import make_registry, publish_version

import secateur
from secateur.dataset.table import open_table
from secateur.errors import InputError
from secateur.files import read_json
from secateur.records.git import git
from secateur.records.registry.checkout import check_out, open_version
from secateur.records.registry.withdrawal import Held, among, withdraw

LINE = "my-pets/multimodal-0.7"


def test_a_withdrawn_picture_is_in_no_later_checkout(
    workplace: Path, outputs: Outputs, other_outputs: Outputs, tmp_path: Path
) -> None:
    location = make_registry(workplace, outputs, other_outputs)
    before = git("rev-parse", f"{LINE}/v1", f"{LINE}/v2", folder=location)
    gone = str(outputs.mask.sample_id[7])  # kept by the one mask, dropped by the other
    held = withdraw(location, gone, reason="the owner asked")
    assert held == [
        Held(f"{LINE}/v1", gone, "kept", 3, "runs:/f00/model", "f00"),
        Held(f"{LINE}/v2", gone, "dropped", 3, "runs:/f00/model", "f00"),
    ]
    for kind, splits in (("ids", ["train"]), ("folder", ["train", "test"])):
        with open_version(location, f"{LINE}/v1") as version:
            says = check_out(version, tmp_path / kind, kind, splits)
        assert (says["counts"]["withdrawn"], says["counts"]["train"]) == (1, 7)
        everything = b"".join(file.read_bytes() for file in (tmp_path / kind).rglob("*") if file.is_file())
        table = open_table(outputs.files["dataset_folder"])
        assert gone.encode() not in everything
        assert table.image(table.sample_id.tolist().index(gone)) not in everything
    mask = secateur.load_mask(f"{LINE}/v1", registry=location)
    assert mask.reasons["withdrawn"] == 1
    assert gone not in mask.sample_id[mask.kept]
    # What was published stays as it is.
    assert git("rev-parse", f"{LINE}/v1", f"{LINE}/v2", folder=location) == before


def test_withdrawing_twice_changes_nothing(workplace: Path, outputs: Outputs) -> None:
    location = make_registry(workplace, outputs)
    gone = str(outputs.mask.sample_id[0])
    withdraw(location, gone)
    head = git("rev-parse", "main", folder=location)
    assert withdraw(location, gone)
    assert git("rev-parse", "main", folder=location) == head
    git("clone", "--quiet", location, "copy")
    assert read_json("copy/withdrawn.json") == [{"picture": gone, "reason": ""}]


def test_a_test_picture_can_be_withdrawn(workplace: Path, outputs: Outputs, tmp_path: Path) -> None:
    location = make_registry(workplace, outputs)
    gone = str(open_table(outputs.files["dataset_folder"]).part("test").sample_id[0])
    assert [(held.role, held.epochs) for held in withdraw(location, gone)] == [("test", 0)]
    with open_version(location, f"{LINE}/v1") as version:
        assert check_out(version, tmp_path / "out", "parquet", ["test"])["counts"]["test"] == 5


def test_exact_copies_go_too() -> None:
    picture = "0123456789abcdef0123456789abcdef"
    assert among([picture, f"{picture}-1", f"{picture}-12", "other-1", "other"], {picture, "other"}) == [
        True, True, True, False, True,
    ]  # fmt: skip


def test_an_id_that_nobody_holds_is_said(workplace: Path, outputs: Outputs) -> None:
    location = make_registry(workplace, outputs)
    head = git("rev-parse", "main", folder=location)
    with pytest.raises(InputError, match="sample id must be one that a version of the registry holds, got 'nobody'"):
        withdraw(location, "nobody")
    assert git("rev-parse", "main", folder=location) == head


def damage(location: str, version: str) -> None:
    """Take a version's mask out of the store."""
    pointer = yaml.safe_load(git("show", f"main:masks/{version}/mask.parquet.dvc", folder=location))
    md5 = pointer["outs"][0]["md5"]
    Path(location).with_name("store").joinpath("files", "md5", md5[:2], md5[2:]).unlink()


def test_a_damaged_version_holds_nothing_up(
    workplace: Path, outputs: Outputs, other_outputs: Outputs, caplog: pytest.LogCaptureFixture
) -> None:
    location = make_registry(workplace, outputs, other_outputs)
    damage(location, f"{LINE}/v1")
    gone = str(outputs.mask.sample_id[0])
    assert [held.version for held in withdraw(location, gone)] == [f"{LINE}/v2"]
    assert f"these versions could not be read and may hold it: {LINE}/v1" in caplog.text
    damage(location, f"{LINE}/v2")
    assert withdraw(location, "nobody") == []  # or somebody of v1 or v2
    listed = json.loads(git("show", "main:withdrawn.json", folder=location))
    assert [entry["picture"] for entry in listed] == sorted([gone, "nobody"])


def test_later_versions_are_checked_out_without_it_too(
    workplace: Path, outputs: Outputs, other_outputs: Outputs
) -> None:
    location = make_registry(workplace, outputs)
    gone = str(outputs.mask.sample_id[0])
    withdraw(location, gone)
    publish_version(location, other_outputs)
    mask = secateur.load_mask(f"{LINE}/v2", registry=location)
    assert mask.reason[0] == "withdrawn"
    assert int(mask.kept.sum()) == int(other_outputs.mask.kept.sum()) - 1
    assert np.array_equal(mask.score, other_outputs.mask.score)
