import pytest
from rich.console import Console

from secateur.pipelines import summary, sweeping
from secateur.pipelines.state import RunState, Step
from secateur.pipelines.summary import accuracy, noise_line, show_costs
from secateur.records.places import Places


def test_a_single_seed_has_no_spread() -> None:
    assert accuracy({"accuracy_mean": 0.5, "accuracy_sd": None}) == "50.0 %"


def test_without_known_labels_nothing_is_said_of_wrong_ones() -> None:
    assert noise_line(None) == ""


def test_a_precision_that_is_not_defined_is_left_out() -> None:
    noise = {"wrong": 10, "found_wrong": 0, "recall": 0.0, "precision": None, "dropped_wrong_all": 3}
    assert noise_line(noise) == ("Of 10 wrong labels the mask found 0 inconsistent (recall 0 %), and dropped 3.")


def test_the_share_of_start_up() -> None:
    console = Console(record=True, width=200)
    steps = [Step("ingest", status="done", start_up=3.0), Step("embed", label="embed", status="reused")]
    show_costs(console, RunState(steps), 20.0)
    said = console.export_text()
    assert "Reused from earlier runs: embed." in said
    assert "The run took 20 s; 3 s (15%) of them" in said


@pytest.mark.parametrize("show_places", [summary.show_places, sweeping.show_places])
def test_passwords_are_not_printed(show_places) -> None:
    console = Console(record=True, width=200)
    where = Places("https://ada:hunter2@host/mlflow", "pets", None, "https://ada:hunter2@host/registry.git", None)
    names = ("report", "mask", "mask_digest", "model", "version", "promotion", "log", "run_id")
    show_places(console, {name: name for name in names} | {"unsent": 0}, where)
    said = console.export_text()
    assert "https://host/mlflow" in said
    assert "hunter2" not in said
