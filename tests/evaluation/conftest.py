import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_model

from secateur.dataset import ImageTable, open_table
from secateur.dataset.images import encode_bmp
from secateur.dataset.sources import write_clean_labels
from secateur.dataset.table import Row, write_table
from secateur.evaluation.results import Results
from secateur.evaluation.runs import evaluate
from secateur.files import read_json, write_json
from secateur.pruning.mask import Mask, read_mask, write_mask
from secateur.training.models import make_network

CLASSES = ("cat", "<script>alert('dog')</script>", "a|b")
SEEDS = (0, 1)
TRAIN, TEST = 60, 30


@dataclass
class World:
    """Everything that an evaluation reads, in one folder, as the other steps would leave it."""

    folder: Path

    @property
    def table(self) -> ImageTable:
        return open_table(self.folder / "data")

    @property
    def mask(self) -> Mask:
        return read_mask(self.folder / "mask")

    def change_mask(self, **columns: object) -> None:
        write_mask(self.folder / "mask", replace(self.mask, **columns))

    def change_run(self, name: str, **fields: object) -> None:
        path = self.folder / name / "run.json"
        write_json(path, read_json(path) | fields)

    def change_clean(self, ids: list[str], labels: list[int]) -> None:
        write_clean_labels(self.folder / "clean.parquet", ids, labels)

    def evaluate(self, out: str = "out") -> Results:
        root = self.folder
        return evaluate(
            root / "data", root / "clean.parquet", root / "model", root / "mask", [root / "full", root / "random"],
            root / out / "results.json", root / out / "report.html", root / out / "summary.md",
        )  # fmt: skip

    def text(self, name: str, out: str = "out") -> str:
        return (self.folder / out / name).read_text(encoding="utf-8")


def picture(random: np.random.Generator) -> bytes:
    return encode_bmp(random.integers(0, 256, (8, 8)).astype(np.uint8))


def make_data(folder: Path) -> None:
    """Labels 0, 1, 2, 0, ...; of the training samples every sixth, whose clean label is the next class, is wrong."""
    random = np.random.default_rng(0)
    splits = ["train"] * TRAIN + ["validation"] * 6 + ["test"] * TEST
    rows = [Row(picture(random), i % 3, split, f"<i>{i:03d}.bmp") for i, split in enumerate(splits)]
    write_table(folder / "data", rows, name="pets & <b>co</b>", classes=CLASSES)
    table = open_table(folder / "data")
    clean = [(label + (split == "train" and i % 6 == 0)) % 3 for i, (label, split) in enumerate(zip(table.label, table.split, strict=True))]  # fmt: skip  # noqa: E501
    write_clean_labels(folder / "clean.parquet", table.sample_id.tolist(), [int(c) for c in clean])


def make_history(seed: int, kept: float) -> list[dict[str, object]]:
    phases = ["warm-up"] * 2 + ["prune"] * 4 + ["anneal"]
    return [
        {
            "phase": phase, "epoch": e, "samples": 60 * (e + 1), "kept": 1.0 if phase == "warm-up" else kept,
            "train_loss": 1 / (e + 1), "train_accuracy": 0.5, "validation_loss": 1.1 / (e + 1) + 0.01 * seed,
            "validation_accuracy": 0.3 + 0.05 * e, "learning_rate": 0.1, "seconds": 0.1 * e,
        }
        for e, phase in enumerate(phases)
    ]  # fmt: skip


def make_run(folder: Path, digest: str, method: str, kept: float, start: int) -> None:
    for seed in SEEDS:
        (folder / f"seed-{seed}").mkdir(parents=True)
        save_model(make_network("convnet", 3, 8, start + seed), str(folder / f"seed-{seed}" / "weights.safetensors"))
        write_json(folder / f"seed-{seed}" / "history.json", make_history(seed, kept))
    run = {
        "method": method, "keep": 0.7, "keep_achieved": kept, "dataset": {"name": "pets", "digest": digest},
        "classes": list(CLASSES), "architecture": {"model": "convnet", "image_size": 8},
        "train_config": {"batch_size": 32, "seeds": list(SEEDS)}, "prune_config": {"method": method, "gate": 0.5},
        "seeds": list(SEEDS), "cost": {"forward_samples": 500, "backward_samples": 420, "seconds": 1.25},
        "semantics": {"clip": "digits-clip", "temperature": 12.5}, "alarms": [], "versions": {"torch": "2"},
    }  # fmt: skip
    write_json(folder / "run.json", run)


def make_mask(folder: Path, train: ImageTable) -> None:
    """Of each ten samples: two inconsistent (one of them wrong where a sixth), one redundant, the rest kept."""
    position_N = np.arange(TRAIN)
    reason_N = np.full(TRAIN, "kept", dtype=object)
    reason_N[position_N % 10 < 2] = "inconsistent"
    reason_N[position_N % 10 == 2] = "redundant"
    kept_N = reason_N == "kept"
    random = np.random.default_rng(3)
    probability_N = np.where(reason_N == "inconsistent", 0.3, 0.9) * random.random(TRAIN)
    mask = Mask(
        sample_id=train.sample_id, kept=kept_N, reason=reason_N, score=random.random(TRAIN).astype(np.float32),
        loss=random.random(TRAIN).astype(np.float32), consistency=np.log(probability_N).astype(np.float32),
        label_probability=probability_N.astype(np.float32),
        suggested_label=((train.label + (reason_N == "inconsistent")) % 3).astype(np.int32),
        epochs_used=np.ones(TRAIN, dtype=np.int32),
        meta={"dataset": {"name": "pets", "digest": train.info.digest}, "method": "multimodal", "config": {},
              "keep_requested": 0.7, "keep_achieved": 0.7, "seed": 0},
    )  # fmt: skip
    write_mask(folder, mask)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    make_data(folder)
    table = open_table(folder / "data")
    for i, (name, method, kept) in enumerate(
        [("model", "multimodal", 0.7), ("full", "full", 1.0), ("random", "random", 0.7)]
    ):
        make_run(folder / name, table.info.digest, method, kept, start=10 * i)
    make_mask(folder / "mask", table.part("train"))
    World(folder).evaluate()
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path) -> World:
    """A copy of its own for each test, already evaluated once into `out`."""
    return World(Path(shutil.copytree(made, tmp_path / "world")))
