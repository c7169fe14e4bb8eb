"""Embedding the pictures of a shard, and the prompts of all classes, with CLIP."""

import logging
import os
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from secateur.dataset.images import decode
from secateur.dataset.table import ImageTable, open_table
from secateur.errors import InputError
from secateur.files import file_digest, replacing, write_json
from secateur.semantics.config import EMBEDDED, ClipConfig, resolve
from secateur.semantics.digits_clip import embedded_clip
from secateur.semantics.embeddings import (
    FILES,
    IMAGES_FILE,
    INFO_FILE,
    SCHEMA_VERSION,
    TEXTS_FILE,
    Embeddings,
    Floats,
    open_embeddings,
    unit,
    write_images,
)
from secateur.semantics.weights import find_weights
from secateur.state import DurableState, content_key

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.semantics.clip import Clip

__all__ = ["Embeddings", "embed_shard", "open_embeddings"]

log = logging.getLogger(__name__)

BATCHES_AHEAD = 2
MAX_READERS = 8
REPORT_SECONDS = 10.0


def embed_shard(
    dataset_folder: str | Path, shard: str, config: ClipConfig, out_folder: str | Path
) -> dict[str, int | float]:
    """Embed the pictures of a shard, other than those of the split `reference`, and the texts of all classes.

    What was embedded before, from the same data set by the same weights, is taken from the durable state.

    Args:
        dataset_folder: The table.
        shard: A file name out of `dataset.json`.
        config: Which CLIP.
        out_folder: Where `embeddings.arrow`, `texts.npy` and `embeddings.json` are written.

    Returns:
        pictures; reused, 1 if they had been embedded before; seconds.

    Raises:
        InputError: The table, the model or its weights cannot be used; the message says why.
    """
    started = time.monotonic()
    out_folder = Path(out_folder)
    table = open_table(dataset_folder, shard)
    config, state = resolve(config, table.info.name), DurableState(out_folder)
    with tempfile.TemporaryDirectory() as scratch, replacing(out_folder) as temporary:
        if config.clip == EMBEDDED and not config.checkpoint:
            config = embedded_clip(config, dataset_folder, state, Path(scratch))
        identity = make_identity(table, shard, config)
        name = f"embeddings/{content_key(**identity)}"
        reused = state.fetch(name, temporary, FILES)
        if reused:
            log.info("reusing the embeddings of %s made before, %s", shard, name)
        else:
            temporary.mkdir()
            write_embeddings(table, config, identity, temporary)
            state.keep(name, temporary, FILES)
    count = int((table.split != "reference").sum())
    return {"pictures": count, "reused": int(reused), "seconds": time.monotonic() - started}


def make_identity(table: ImageTable, shard: str, config: ClipConfig) -> dict[str, Any]:
    """All that the embeddings depend on; the preprocessing follows from the model, its tag and open_clip's version."""
    return {
        "schema_version": SCHEMA_VERSION,
        "dataset": {"name": table.info.name, "digest": table.info.digest},
        "shard": shard,
        "prompts": list(table.info.prompts),
        "model": config.clip,
        "pretrained": config.pretrained,
        "model_config": file_digest(config.clip_config) if config.clip_config else "",
        "weights": file_digest(find_weights(config)),
        "open_clip": version("open_clip_torch"),
    }


def write_embeddings(table: ImageTable, config: ClipConfig, identity: dict[str, Any], folder: Path) -> None:
    """Run the model, and write the files of the shard."""
    from secateur.semantics.clip import load_clip  # takes seconds to import, and what is reused does without it

    clip = load_clip(config)
    log.info("CLIP %s, weights %s, on %s in %s", config.clip, identity["weights"][:12], clip.device, clip.precision)
    row_N = np.flatnonzero(table.split != "reference")
    text_CD = embed_classes(clip, table.info.classes, table.info.prompts)
    image_ND = embed_pictures(clip, table, row_N, config.embed_batch, width=text_CD.shape[1])
    if not (np.isfinite(image_ND).all() and np.isfinite(text_CD).all()):
        raise InputError(f"clip must give finite embeddings, got others from {config.clip} in {clip.precision}")
    write_images(folder / IMAGES_FILE, table.sample_id[row_N], image_ND)
    np.save(folder / TEXTS_FILE, text_CD, allow_pickle=False)
    made = {"preprocessing": clip.preprocessing, "precision": clip.precision, "width": text_CD.shape[1]}
    write_json(folder / INFO_FILE, identity | made | {"count": len(row_N)})


def embed_classes(clip: "Clip", classes: Sequence[str], prompts: Sequence[str]) -> Floats:
    """One text embedding per class, the mean over the prompts at length 1, float32 (C, D)."""
    texts = [prompt.replace("{}", name.replace("_", " ")) for name in classes for prompt in prompts]
    text_CPD = clip.encode_texts(texts).reshape(len(classes), len(prompts), -1).numpy()
    return unit(text_CPD.mean(axis=1))


def embed_pictures(
    clip: "Clip", table: ImageTable, row_N: npt.NDArray[np.int64], batch: int, width: int
) -> npt.NDArray[np.float16]:
    """Embed the pictures of the given rows, float16 (N, D)."""
    image_ND = np.empty((len(row_N), width), dtype=np.float16)
    started = reported = time.monotonic()
    done = 0
    for picture_B3HW in read_batches(clip, table, row_N, batch):
        image_ND[done : done + len(picture_B3HW)] = clip.encode_images(picture_B3HW).numpy()
        done += len(picture_B3HW)
        now = time.monotonic()
        if done == len(row_N) or now - reported > REPORT_SECONDS:
            log.info("embedded %d of %d pictures, %.0f pictures/s", done, len(row_N), done / (now - started))
            reported = now
    return image_ND


def read_batches(clip: "Clip", table: ImageTable, row_N: npt.NDArray[np.int64], batch: int) -> Iterator["Tensor"]:
    """Decode pictures in threads, a few batches ahead of the model, float32 (B, 3, H, W)."""
    import torch

    def read(row: int) -> "Tensor":
        try:
            return clip.preprocess(decode(table.image(row)))
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(f"pictures must decode, got {table.source(row)!r}, which does not: {error}") from error

    ahead: deque[list[Future[Tensor]]] = deque()
    with ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_READERS)) as pool:
        for start in range(0, len(row_N), batch):
            ahead.append([pool.submit(read, int(row)) for row in row_N[start : start + batch]])
            if len(ahead) > BATCHES_AHEAD:
                yield torch.stack([future.result() for future in ahead.popleft()])
        while ahead:
            yield torch.stack([future.result() for future in ahead.popleft()])
