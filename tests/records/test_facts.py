import json
from pathlib import Path

import pytest
from made_outputs import Outputs

from secateur.files import read_json
from secateur.records.tracking.facts import Point, curve_points, final_figures, flat_params


@pytest.fixture
def model_folder(outputs: Outputs) -> Path:
    return outputs.files["model_folder"]


def test_params_are_flat_texts_without_doubles(model_folder: Path) -> None:
    params = flat_params(read_json(model_folder / "run.json"))
    assert all(isinstance(value, str) for value in params.values())
    assert {
        "method": "multimodal",
        "keep": "0.7",
        "seeds": "3, 4",
        "rate": "0.5",
        "batch_size": "4",
    }.items() <= params.items()
    assert (params["data_name"], params["image_size"], params["versions.secateur"]) == ("my pets", "8", "0.1.0")


def test_curves_have_a_point_for_each_epoch_and_seed(model_folder: Path) -> None:
    histories = {seed: read_json(model_folder / f"seed-{seed}" / "history.json") for seed in (3, 4)}
    points = curve_points(histories)
    names = {"kept", "samples", "train_loss", "train_accuracy", "learning_rate"}
    assert {p.name for p in points} == {f"{name}/seed-{seed}" for name in names for seed in (3, 4)}
    assert [p for p in points if p.name == "kept/seed-4"] == [
        Point("kept/seed-4", 1.0, 1, 0.5),
        Point("kept/seed-4", 0.7, 2, 1.5),
        Point("kept/seed-4", 0.7, 3, 2.5),
    ]


def test_figures_of_other_arms_end_with_their_names(outputs: Outputs) -> None:
    figures = final_figures(json.loads(outputs.files["results_file"].read_text()))
    assert figures["test_accuracy"] == pytest.approx(0.85)
    assert figures["test_accuracy_random"] == pytest.approx(0.65)
    assert figures["test_accuracy_by_seed/seed-4"] == 0.8
    assert (figures["mask/kept"], figures["mask/redundant"]) == (8, 4)
    assert figures["noise/recall"] == 0.5
    assert "noise/precision" not in figures  # not defined


def test_arms_of_one_name_are_told_apart_by_keep() -> None:
    arms = [{"name": "full", "keep": keep, "accuracy_mean": keep} for keep in (1.0, 0.5, 0.25)]
    assert final_figures({"arms": arms}) == {
        "test_accuracy": 1.0,
        "test_accuracy_full-0.5": 0.5,
        "test_accuracy_full-0.25": 0.25,
    }
