"""A small pipeline run's outputs, written by the library's own writers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_model

from secateur.dataset.images import encode_bmp
from secateur.dataset.table import Row, open_table, write_table
from secateur.files import write_json
from secateur.pruning.mask import Mask, read_mask, write_mask, write_trajectory
from secateur.training.models import make_network

CLASSES = ("cat", "dog", "owl")
TRAIN = 12
PER_EPOCH = {"train_loss": 1.5, "train_accuracy": 0.5, "validation_loss": None, "validation_accuracy": None}


@dataclass
class Outputs:
    """What the steps before `publish` wrote."""

    folder: Path
    digest: str
    files: dict[str, Path] = field(init=False)

    def __post_init__(self) -> None:
        self.files = {
            "dataset_folder": self.folder / "data",
            "model_folder": self.folder / "model",
            "mask_folder": self.folder / "mask",
            "results_file": self.folder / "results",
            "report_file": self.folder / "report",
            "summary_file": self.folder / "summary",
        }

    @property
    def mask(self) -> Mask:
        return read_mask(self.files["mask_folder"])


def write_outputs(folder: Path, *, kept_first: int = 8, method: str = "multimodal") -> Outputs:
    rng = np.random.default_rng(0)
    splits = ["train"] * TRAIN + ["test"] * 6
    rows = [
        Row(encode_bmp(rng.integers(0, 255, (8, 8), dtype=np.uint8)), i % 3, split, f"{i}.bmp")
        for i, split in enumerate(splits)
    ]
    info = write_table(folder / "data", rows, name="my pets", classes=CLASSES)
    dataset = {"name": info.name, "digest": info.digest}
    kept = np.arange(TRAIN) < kept_first
    mask = Mask(
        sample_id=open_table(folder / "data").part("train").sample_id,
        kept=kept,
        reason=np.where(kept, "kept", "redundant").astype(object),
        score=np.linspace(0, 1, TRAIN, dtype=np.float32),
        loss=np.ones(TRAIN, np.float32),
        consistency=np.full(TRAIN, np.nan, np.float32),
        label_probability=np.full(TRAIN, np.nan, np.float32),
        suggested_label=np.full(TRAIN, -1, np.int32),
        epochs_used=np.full(TRAIN, 3, np.int32),
        meta={
            "dataset": dataset,
            "method": method,
            "config": {"method": method, "keep": 0.7},
            "keep_requested": 0.7,
            "keep_achieved": float(kept.mean()),
            "seed": 3,
        },
    )
    write_mask(folder / "mask", mask)
    row = {"seed": 3, "epoch": 0, "phase": "prune", "count": int(kept.sum()), "active": np.packbits(kept)}
    write_trajectory(folder / "mask", [row])
    outputs = Outputs(folder, mask.digest)
    write_run(outputs, dataset, method)
    write_json(outputs.files["results_file"], results(dataset, mask, method))
    outputs.files["report_file"].write_text("<!doctype html><title>report</title>")
    outputs.files["summary_file"].write_text("# a summary\n")
    return outputs


def write_run(outputs: Outputs, dataset: dict[str, str], method: str) -> None:
    run: dict[str, Any] = {
        "method": method,
        "keep": 0.7,
        "keep_achieved": 0.66,
        "dataset": dataset,
        "classes": list(CLASSES),
        "architecture": {"model": "convnet", "image_size": 8},
        "train_config": {"model": "convnet", "batch_size": 4, "seeds": [3, 4]},
        "prune_config": {"method": method, "keep": 0.7, "rate": 0.5},
        "seeds": [3, 4],
        "cost": {"forward_samples": 20, "backward_samples": 20, "seconds": 1.0},
        "semantics": None,
        "alarms": ["scores do not discriminate"],
        "versions": {"secateur": "0.1.0"},
    }
    folder = outputs.files["model_folder"]
    for seed in run["seeds"]:
        (folder / f"seed-{seed}").mkdir(parents=True)
        network = make_network("convnet", len(CLASSES), 8, seed)
        save_model(network, str(folder / f"seed-{seed}" / "weights.safetensors"))
        history = [
            PER_EPOCH
            | {"phase": phase, "epoch": e, "samples": 12 * (e + 1), "kept": k, "learning_rate": 0.1, "seconds": e + 0.5}
            for e, (phase, k) in enumerate([("warm-up", 1.0), ("prune", 0.7), ("anneal", 0.7)])
        ]
        write_json(folder / f"seed-{seed}" / "history.json", history)
    write_json(folder / "run.json", run)


def results(dataset: dict[str, str], mask: Mask, method: str) -> dict[str, Any]:
    def arm(name: str, role: str, accuracy: list[float]) -> dict[str, Any]:
        return {
            "name": name,
            "role": role,
            "keep": 0.7,
            "keep_achieved": 0.66,
            "seeds": [3, 4],
            "accuracy": accuracy,
            "accuracy_mean": sum(accuracy) / 2,
            "accuracy_sd": 0.01,
            "forward_samples": 20,
            "backward_samples": 20,
            "seconds": 1.0,
        }

    return {
        "dataset": dataset,
        "arms": [arm(method, "pruned", [0.9, 0.8]), arm("random", "baseline", [0.7, 0.6])],
        "reasons": mask.reasons,
        "noise": {"wrong": 3, "found_wrong": 1, "recall": 0.5, "precision": None, "dropped_wrong_all": 2},
        "mask_digest": mask.digest,
        "alarms": [],
    }
