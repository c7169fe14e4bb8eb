"""Which planted near copies are found, and what else is taken for one, at several thresholds.

    python -m benchmarks.near_copies --data DIR --cache CACHE

Copies of pictures of CIFAR-10 that the small CLIP never saw are added to 30,000 of them: encoded anew as JPEG,
brightened, shifted by one pixel. CIFAR-10 has near copies of its own, so that what else is found is looked at by the
correlation of its pixels.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from benchmarks.data import cifar10, read_cifar10
from benchmarks.detection import UNSEEN, unseen_embeddings
from benchmarks.grid import RECORDS, hardware
from secateur.files import write_json
from secateur.semantics.clip import load_clip, resolve
from secateur.semantics.config import ClipConfig
from secateur.semantics.neighbours import USUAL, copies, search

COPIES = 200  # of each kind
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
ALIKE = 0.8  # correlation of pixels above which two pictures are taken for one

Pixels = npt.NDArray[np.uint8]


def as_jpeg(pixels_HW3: Pixels, quality: int) -> Pixels:
    """A picture after a JPEG encoder."""
    out = io.BytesIO()
    Image.fromarray(pixels_HW3).save(out, format="JPEG", quality=quality)
    return np.asarray(Image.open(out).convert("RGB"))


KINDS: dict[str, Callable[[Pixels], Pixels]] = {
    "JPEG, quality 90": lambda p: as_jpeg(p, 90),
    "JPEG, quality 75": lambda p: as_jpeg(p, 75),
    "brighter by a tenth": lambda p: np.asarray(ImageEnhance.Brightness(Image.fromarray(p)).enhance(1.1)),
    "shifted by one pixel": lambda p: np.concatenate([p[:, :1], p[:, :-1]], axis=1),
}


def measure(image_ND: npt.NDArray[np.float32], planted_ND: npt.NDArray[np.float32], pixels_NHW3: Pixels) -> list[dict]:
    """Found shares of each kind, and the natural groups, at each threshold."""
    size, rows = len(image_ND), []
    near = search(np.concatenate([image_ND, planted_ND]), USUAL + 1)
    flat_NP = pixels_NHW3.reshape(size, -1)
    for threshold in THRESHOLDS:
        first_N = copies(near, threshold)
        found = {
            kind: float((first_N[size + i * COPIES :][:COPIES] == first_N[i * COPIES :][:COPIES]).mean())
            for i, kind in enumerate(KINDS)
        }
        natural = np.flatnonzero(first_N[:size] != np.arange(size))
        alike = [np.corrcoef(flat_NP[i], flat_NP[first_N[i]])[0, 1] > ALIKE for i in natural]
        others = {"natural": len(natural), "natural_alike": float(np.mean(alike or 0))}
        rows.append({"threshold": threshold, "found": found} | others)
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.near_copies", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path(".secateur/benchmarks"))
    parser.add_argument("--out", type=Path, default=RECORDS / "near-copies")
    args = parser.parse_args(arguments)
    import torch

    data = cifar10("aggre", args.data, args.cache)
    image_ND, _ = unseen_embeddings(data, args.data, args.cache)
    pixels_NHW3 = read_cifar10(args.data)[0][UNSEEN : UNSEEN + len(image_ND)]
    weights = next((args.data / "cifar-clip").glob("*.safetensors"))
    config = ClipConfig(checkpoint=str(weights), clip_config=str(weights.with_suffix(".json")))
    clip = load_clip(resolve(config, "cifar10"))
    planted = [change(pixels_NHW3[i * COPIES + j]) for i, change in enumerate(KINDS.values()) for j in range(COPIES)]
    planted_ND = clip.encode_pixels(torch.from_numpy(np.stack(planted))).cpu().numpy()
    rows = measure(image_ND, planted_ND, pixels_NHW3)
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "results.json", {"hardware": hardware(1, 1), "results": rows})
    lines = [
        "# Near copies",
        "",
        f"{COPIES} planted copies of each kind among {len(image_ND):,} pictures of CIFAR-10, embedded with the small",
        "CLIP: share of them that is found, in percent; how many of the other pictures are taken for copies of one",
        f"another, and of those the share whose pixels correlate by more than {ALIKE}. The default threshold is 0.3.",
        "Made by `python -m benchmarks.near_copies --data DIR`.",
        "",
        "| threshold | " + " | ".join(KINDS) + " | others | of them alike |",
        "|---:|" + "---:|" * (len(KINDS) + 2),
    ]
    for row in rows:
        found = " | ".join(f"{100 * share:.0f}" for share in row["found"].values())
        lines.append(f"| {row['threshold']:g} | {found} | {row['natural']} | {100 * row['natural_alike']:.0f} |")
    (args.out / "README.md").write_text("\n".join(lines) + "\n")
    print((args.out / "README.md").read_text())


if __name__ == "__main__":
    main()
