"""Class similarities for the training pictures, strong and weak, and the label model fitted to them.

`similarity` comes from two small networks that saw clean labels of the other half (`cifar10_similarity.npz`); it
stands in for a web-scale CLIP. `degraded94`, `degraded90`, `degraded80` add Gaussian noise to it until low q finds
synthetic wrong labels with that AUROC; the level is set once, on synthetic symmetric noise over the original labels,
and holds for all label sets and arms. `clip` is a real open_clip model from files; for the digits, the embedded one.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.data import SYMMETRIC, Data, read_cifar10, symmetric_noise
from secateur.evaluation.scores import auroc
from secateur.pruning.method import Semantics
from secateur.semantics.config import ClipConfig
from secateur.semantics.consistency import log_softmax
from secateur.semantics.embed import embed_shard, open_embeddings
from secateur.semantics.mixture import fit_label_model

TARGETS = {"degraded94": 0.94, "degraded90": 0.90, "degraded80": 0.80}
NAMES = ("similarity", *TARGETS, "clip")
LOGIT_SCALE = 100.0  # logits to the range of CLIP's cosines; the label model finds its own temperature
HALVINGS = 12

Floats = npt.NDArray[np.float64]


def similarities(name: str, data: Data, folder: str | Path | None, cache_folder: str | Path) -> Floats:
    """Similarity of each training picture with each class, float64 (N, C)."""
    if name == "clip":
        image_ND, text_CD = clip_embeddings(data, folder, cache_folder)
        return (image_ND[: len(data.original_N)] @ text_CD.T).astype(np.float64)
    logit_NC = similarity_logits(str(folder))
    if name in TARGETS:
        logit_NC = degraded(logit_NC, noise_level(str(folder), TARGETS[name]))
    return logit_NC[data.original_N] / LOGIT_SCALE


@cache
def similarity_logits(folder: str) -> Floats:
    """The logits that come with the data, float64 (50000, C)."""
    return np.load(Path(folder) / "cifar10_similarity.npz")["logits"].astype(np.float64)


def degraded(logit_NC: Floats, level: float) -> Floats:
    """The logits with seeded Gaussian noise."""
    return logit_NC + level * np.random.default_rng(94).standard_normal(logit_NC.shape)


@cache
def noise_level(folder: str, target: float) -> float:
    """Standard deviation at which -q finds synthetic symmetric noise with the target AUROC, by bisection."""
    logit_NC = similarity_logits(folder)
    clean_N, every = read_cifar10(folder)[1][: len(logit_NC)], np.arange(len(logit_NC))
    key_N = np.random.default_rng(30).integers(0, 2**63, len(clean_N)).astype(np.uint64)
    drawn_N = symmetric_noise(clean_N, key_N, SYMMETRIC, "degradation")
    low, high = 0.0, 8 * float(logit_NC.std())
    for _ in range(HALVINGS):
        level = (low + high) / 2
        q_N = log_softmax(degraded(logit_NC, level))[every, drawn_N]
        low, high = (level, high) if auroc(-q_N, drawn_N != clean_N) > target else (low, level)
    return level


def fit(similarity_NC: Floats, data: Data) -> tuple[Semantics, dict[str, Any]]:
    """The label model on the given labels, and what a record says of it; AUROC is against the true labels."""
    label_N = data.table.label[data.original_N]
    model = fit_label_model(similarity_NC, label_N)
    figures = {
        "temperature": model.temperature,
        "agreement_with_given_labels": model.zero_shot_agreement,
        "expected_wrong": model.expected_wrong,
    }
    if data.wrong_N.any():
        figures["auroc_of_q"] = auroc(-model.consistency_N, data.wrong_N)
        figures["auroc_of_pi"] = auroc(-model.label_probability_N, data.wrong_N)
    return Semantics.of(model), figures


def clip_embeddings(data: Data, folder: str | Path | None, cache_folder: str | Path) -> tuple[Floats, Floats]:
    """Unit embeddings of the training pictures followed by the test pictures, float32 (N, D), and of the classes."""
    test_N = np.flatnonzero(data.table.split == "test")
    rows = np.concatenate([data.original_N, test_N])
    if data.table.info.name == "digits":
        return digits_embeddings(data, Path(cache_folder), rows)
    file = Path(cache_folder) / f"clip-embeddings-{len(data.table)}.npz"
    if not file.is_file():
        weights = next((Path(str(folder)) / "cifar-clip").glob("*.safetensors"))
        config = ClipConfig(checkpoint=str(weights), clip_config=str(weights.with_suffix(".json")))
        folder, shard = Path(cache_folder) / data.table.info.name, data.table.info.shards[0]
        embed_shard(folder, shard, config, folder / "embeddings")
        found = open_embeddings([folder / "embeddings"], data.table)
        np.savez(file, image_ND=found.image_ND, text_CD=found.text_CD)
    saved = np.load(file)
    return saved["image_ND"][rows].astype(np.float32), saved["text_CD"]


def digits_embeddings(data: Data, cache_folder: Path, rows: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """The embedded CLIP's embeddings of the digits."""
    folder = cache_folder / "digits"
    if not (folder / "embeddings").is_dir():
        embed_shard(folder / "data", data.table.info.shards[0], ClipConfig(), folder / "embeddings")
    found = open_embeddings([folder / "embeddings"], data.table)
    place = np.cumsum(data.table.split != "reference") - 1  # embeddings pass over the reference split
    return found.image_ND[place[rows]], found.text_CD


def probe(data: Data, folder: str | Path | None, cache_folder: str | Path) -> float:
    """Test accuracy of logistic regression on the embeddings with the given labels."""
    from sklearn.linear_model import LogisticRegression

    image_ND, _ = clip_embeddings(data, folder, cache_folder)
    train = len(data.original_N)
    scaled_ND = image_ND / image_ND[:train].std()
    model = LogisticRegression(C=0.1, max_iter=300).fit(scaled_ND[:train], data.table.label[data.original_N])
    test_label_N = data.table.label[data.table.split == "test"]
    return float((model.predict(scaled_ND[train:]) == test_label_N).mean())
