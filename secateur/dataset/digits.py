"""The embedded data set: 1,797 scanned handwritten digits, 8x8 pixels, with labels spoiled on purpose.

The digits come with scikit-learn (E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998).
A third of them, with clean captions, is set apart to train the small CLIP; no other step sees it. Of the labels of the
training and validation splits 15 % are wrong.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from secateur.dataset.images import encode_bmp
from secateur.dataset.table import Row, image_ids
from secateur.streams import sample_keys, shuffled, uniform

NAME = "digits"
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PROMPTS = (
    "a scan of the digit {}.",
    "a handwritten {}.",
    "the number {} written by hand.",
    "a blurry picture of a {}.",
)
NOISE = 0.15
REFERENCE = 1 / 3
TEST = 0.25
VALIDATION = 0.08


def read_pixels() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read the pictures, uint8 (1797, 8, 8), and their labels, int64 (1797,), as scikit-learn ships them.

    The file is read without importing scikit-learn, which takes longer than all the rest of the step.
    """
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the digits come with scikit-learn, which is not installed")
    table = np.loadtxt(Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    pixels = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return pixels, table[:, -1].astype(np.int64)


def assign_splits(
    ids: Sequence[str], label_N: npt.NDArray[np.int64], seed: int, shares: dict[str, float]
) -> npt.NDArray[np.object_]:
    """Split every class in the given shares, by a hash of the ids; the rest is the training split, object (N,)."""
    key_N = sample_keys(ids)
    split_N = np.full(len(ids), "train", dtype=object)
    for label in np.unique(label_N):
        members = np.flatnonzero(label_N == label)
        members = members[shuffled(key_N[members], "split", seed)]
        start = 0.0
        for split, share in shares.items():
            split_N[members[round(start * len(members)) : round((start + share) * len(members))]] = split
            start += share
    return split_N


def spoil_labels(
    ids: Sequence[str], label_N: npt.NDArray[np.int64], spoilable_N: npt.NDArray[np.bool_], seed: int
) -> npt.NDArray[np.int64]:
    """Give exactly `NOISE` of the spoilable samples another class, chosen evenly among the others, int64 (N,)."""
    key_N = sample_keys(ids)
    candidates = np.flatnonzero(spoilable_N)
    chosen = candidates[shuffled(key_N[candidates], "noise", seed)][: round(NOISE * len(candidates))]
    step_N = 1 + np.floor(uniform(key_N[chosen], "wrong label", seed) * (len(CLASSES) - 1)).astype(np.int64)
    noisy_N = label_N.copy()
    noisy_N[chosen] = (label_N[chosen] + step_N) % len(CLASSES)
    return noisy_N


def digits_rows(seed: int = 0) -> tuple[list[Row], list[int]]:
    """Make the rows of the table, and the clean label of each, which only `evaluate` may see."""
    pixels_NHW, clean_N = read_pixels()
    images = [encode_bmp(pixels) for pixels in pixels_NHW]
    ids = image_ids(images)
    shares = {"reference": REFERENCE, "test": TEST, "validation": VALIDATION}
    split_N = assign_splits(ids, clean_N, seed, shares)
    label_N = spoil_labels(ids, clean_N, np.isin(split_N, ["train", "validation"]), seed)
    rows = [
        Row(
            image=image,
            label=int(label),
            split=str(split),
            source=f"digits/{position:04d}.bmp",
            caption=CLASSES[clean] if split == "reference" else None,
        )
        for position, (image, label, clean, split) in enumerate(zip(images, label_N, clean_N, split_N, strict=True))
    ]
    return rows, clean_N.tolist()
