"""Throughput of embedding: encoded pictures in a table to vectors kept on disk, beside the encoder alone.

    OMP_WAIT_POLICY=passive python -m benchmarks.embedding --data DIR

`DIR` holds CIFAR-10 and `cifar-clip/` (see `benchmarks/README.md`). The bare loop calls `encode_image` of the same
model on preprocessed tensors that lie in memory, with the same batch, precision and threads. Rounds alternate between
the two; ratios are medians over the rounds, of seconds and of CPU seconds: the second is what matters where the encoder
keeps all cores busy, and hardly minds what else runs on the machine. The large model is ViT-B/32 with random weights,
whose speed is that of any. The photographs are CIFAR-10's pictures, enlarged to 500 x 375 pixels, as JPEG.
"""

import argparse
import io
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.data import encode, read_cifar10
from benchmarks.grid import RECORDS, hardware
from secateur.dataset import ImageTable, open_table
from secateur.dataset.images import decode
from secateur.dataset.table import Row, write_table
from secateur.files import write_json
from secateur.semantics.cache import VectorCache
from secateur.semantics.clip import Clip, load_clip, resolve
from secateur.semantics.config import ClipConfig
from secateur.semantics.embed import embed_rows
from secateur.semantics.embeddings import VectorFile
from secateur.semantics.hardware import batch_of, workers_of
from secateur.state import STATE_VARIABLE, DurableState

ROUNDS = 7
PICTURES = {"ViT-B-32": 128, "cifar-clip": 2048}


def png(pixels_HW3: npt.NDArray[np.uint8]) -> bytes:
    """A picture as PNG."""
    out = io.BytesIO()
    Image.fromarray(pixels_HW3).save(out, format="PNG")
    return out.getvalue()


def photograph(pixels_HW3: npt.NDArray[np.uint8]) -> bytes:
    """A picture as a JPEG of 500 x 375."""
    out = io.BytesIO()
    Image.fromarray(pixels_HW3).resize((500, 375), Image.Resampling.BICUBIC).save(out, format="JPEG", quality=90)
    return out.getvalue()


FORMATS: dict[str, Callable[[npt.NDArray[np.uint8]], bytes]] = {"BMP": encode, "PNG": png, "JPEG 500 x 375": photograph}
CASES = (("ViT-B-32", "PNG"), ("ViT-B-32", "JPEG 500 x 375"), ("cifar-clip", "BMP"), ("cifar-clip", "PNG"))


def make_table(folder: Path, pixels_NHW3: npt.NDArray[np.uint8], form: str) -> ImageTable:
    """A table of pictures in one format."""
    rows = [Row(FORMATS[form](p), 0, "train", str(i)) for i, p in enumerate(pixels_NHW3)]
    write_table(folder, rows, name="pictures", classes=("thing",))
    return open_table(folder)


def find_clip(name: str, data: Path, scratch: Path) -> tuple[Clip, ClipConfig]:
    """The model, and its config."""
    if name == "cifar-clip":
        weights = data / name / f"{name}.safetensors"
        config = ClipConfig(checkpoint=str(weights), clip_config=str(weights.with_suffix(".json")))
    else:
        weights = scratch / f"{name}.safetensors"
        with torch.random.fork_rng():
            torch.manual_seed(0)
            save_file(open_clip.create_model(name).state_dict(), weights)
        config = ClipConfig(clip=name, checkpoint=str(weights))
    config = resolve(config, "pictures")
    return load_clip(config), config


def preprocessed(clip: Clip, table: ImageTable) -> torch.Tensor:
    """All pictures as the model takes them, float32 (N, 3, H, W)."""
    pixels = np.stack([clip.preprocess.pixels(decode(table.image(row))) for row in range(len(table))])
    return clip.preprocess.normalise(torch.from_numpy(pixels))


def measure(clip: Clip, config: ClipConfig, table: ImageTable, scratch: Path, rounds: int) -> dict[str, Any]:
    """Pictures per second of both, and their ratio."""
    picture_N3HW, batch = preprocessed(clip, table), batch_of(config)
    row_N = np.arange(len(table))
    width = len(clip.encode_images(picture_N3HW[:1])[0])

    def bare(round_: int) -> None:
        dtype = open_clip.get_input_dtype(clip.precision)
        with torch.inference_mode():
            for start in range(0, len(picture_N3HW), batch):
                clip.model.encode_image(picture_N3HW[start : start + batch].to(clip.device, dtype))

    def ours(round_: int) -> None:
        kept = VectorCache(DurableState(scratch / "out"), f"{table.info.digest[:8]}-{round_}")
        embed_rows(table, row_N, kept, lambda: clip, config, VectorFile(scratch / "vectors", width))

    seconds: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
    for round_ in range(rounds + 1):
        for name, call in (("bare", bare), ("ours", ours)):
            started, spent = time.perf_counter(), time.process_time()
            call(round_)
            if round_:  # the first is a warm-up
                seconds[name].append((time.perf_counter() - started, time.process_time() - spent))
    speed = {name: len(table) / float(np.median([wall for wall, _ in times])) for name, times in seconds.items()}
    ratio_R2 = np.array(seconds["bare"]) / np.array(seconds["ours"])
    return {
        "pictures": len(table),
        "batch": batch,
        "workers": workers_of(config),
        "precision": clip.precision,
        "bare": speed["bare"],
        "ours": speed["ours"],
        "ratio": float(np.median(ratio_R2[:, 0])),
        "cpu_ratio": float(np.median(ratio_R2[:, 1])),
        "rounds": ratio_R2.tolist(),
    }


def write_record(folder: Path, results: list[dict[str, Any]], rounds: int) -> None:
    """Write the figures, and the table."""
    machine = hardware(torch.get_num_threads(), 1) | {"load": os.getloadavg()[0]}
    write_json(folder / "results.json", {"hardware": machine, "results": results})
    lines = [
        "# Throughput of embedding",
        "",
        "Pictures per second: from encoded pictures in a table to vectors kept on disk (decoding, resizing, encoding,",
        "float16, the durable state), beside a bare loop of `encode_image` over preprocessed tensors in memory, with",
        f"the same model, batch, precision and threads. Medians of {rounds} rounds that alternate between the two;",
        "ratios are medians of each round's, of seconds and of CPU seconds. The second tells how fast embedding is",
        "where the encoder keeps all cores busy, and hardly minds what else runs. ViT-B-32 has random weights.",
        "",
        f"{machine['threads_per_worker']} threads of {machine['cpu']}, torch {torch.__version__}, open_clip",
        f"{open_clip.__version__}; {machine['load']:.0f} processes ran at a time on {machine['cores']} cores.",
        "Made by `OMP_WAIT_POLICY=passive python -m benchmarks.embedding --data DIR`.",
        "",
        "| model | pictures | batch | encoder alone | embedding | ratio | of CPU seconds | lowest, highest round |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for r in results:
        low, high = np.sort([cpu for _, cpu in r["rounds"]])[[0, -1]]
        speeds = f"{r['batch']} | {r['bare']:,.1f}/s | {r['ours']:,.1f}/s"
        ratios = f"{r['ratio']:.1%} | **{r['cpu_ratio']:.1%}** | {low:.1%}, {high:.1%}"
        lines.append(f"| {r['model']} | {r['pictures']:,} {r['format']} | {speeds} | {ratios} |")
    (folder / "README.md").write_text("\n".join(lines) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Measure all cases, and write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedding", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(PICTURES))
    parser.add_argument("--pictures", type=int, help="of each case; by default as many as take seconds")
    parser.add_argument("--out", type=Path, default=RECORDS / "embedding")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    logging.getLogger().setLevel(logging.ERROR)
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.pop(STATE_VARIABLE, None)  # vectors are kept in the scratch folder
        every_NHW3, _ = read_cifar10(args.data)
        for model, form in CASES:
            if model not in args.models:
                continue
            clip, config = find_clip(model, args.data, Path(scratch))
            table = make_table(Path(scratch) / "table", every_NHW3[-(args.pictures or PICTURES[model]) :], form)
            results.append({"model": model, "format": form, **measure(clip, config, table, Path(scratch), args.rounds)})
            print(results[-1])
    write_record(args.out, results, args.rounds)
    print((args.out / "README.md").read_text())


if __name__ == "__main__":
    main()
