"""Trained classifiers, read back."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_model

from secateur.dataset import ImageTable
from secateur.dataset.loader import Pictures
from secateur.files import read_json
from secateur.training.loop import pick_device, predict_pictures
from secateur.training.models import Classifier, make_network

RUN_FILE = "run.json"


def load_network(run_folder: str | Path, seed: int) -> Classifier:
    """The trained classifier of a seed, in evaluation mode: float32 (B, 3, H, W) in [0, 1] to logits (B, C)."""
    run = read_json(Path(run_folder) / RUN_FILE)
    architecture = run["architecture"]
    network = make_network(architecture["model"], len(run["classes"]), architecture["image_size"], seed)
    load_model(network, Path(run_folder) / f"seed-{seed}" / "weights.safetensors")
    return network.eval()


def predict(network: Classifier, table: ImageTable) -> npt.NDArray[np.float32]:
    """Logits of a classifier for all pictures of a table, float32 (N, C)."""
    device = pick_device()
    return predict_pictures(network.to(device), Pictures(table, network.image_size, device))
