"""Embedding the pictures of a shard, and the texts of all classes, with CLIP."""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from secateur.dataset.table import ImageTable, TableInfo, open_table
from secateur.errors import InputError
from secateur.files import file_digest, replacing, write_json
from secateur.semantics.cache import Positions, VectorCache
from secateur.semantics.config import EMBEDDED, ClipConfig, resolve
from secateur.semantics.digits_clip import embedded_clip
from secateur.semantics.embeddings import (
    IMAGES_FILE,
    INFO_FILE,
    SCHEMA_VERSION,
    TEXTS_FILE,
    Embeddings,
    Floats,
    VectorFile,
    open_embeddings,
    unit,
)
from secateur.semantics.hardware import batch_of, precision_of, workers_of
from secateur.semantics.prompts import class_texts, read_prompts
from secateur.semantics.weights import find_weights
from secateur.state import DurableState, content_key

if TYPE_CHECKING:
    from secateur.semantics.clip import Clip

__all__ = ["Embeddings", "embed_shard", "open_embeddings"]

log = logging.getLogger(__name__)

# A killed step loses what came after its last chunk; a cache of many small ones would be slow to look through.
CHUNK_PICTURES = 8192
CHUNK_SECONDS = 60.0


def embed_shard(
    dataset_folder: str | Path, shard: str, config: ClipConfig, out_folder: str | Path
) -> dict[str, int | float]:
    """Embed the pictures of a shard, other than those of the split `reference`, and the texts of all classes.

    What the same model embedded before, of any data set, is taken from the durable state, and what is embedded is kept
    there as it comes: a killed step goes on where it was.

    Args:
        dataset_folder: The table.
        shard: A file name out of `dataset.json`.
        config: Which CLIP, and how.
        out_folder: Where `embeddings.arrow`, `texts.npy` and `embeddings.json` are written.

    Returns:
        pictures; embedded and reused, which are those embedded now and before; seconds.

    Raises:
        InputError: The table, the prompts, the model or its weights cannot be used; the message says why.
    """
    started = time.monotonic()
    table = open_table(dataset_folder, shard)
    own = () if table.info.prompts == TableInfo.prompts else table.info.prompts
    texts = class_texts(table.info.classes, read_prompts(config.prompts), own)
    config, state = resolve(config, table.info.name), DurableState(out_folder)
    row_N = np.flatnonzero(table.split != "reference")
    with tempfile.TemporaryDirectory() as scratch, replacing(out_folder) as temporary:
        if config.clip == EMBEDDED and not config.checkpoint:
            config = embedded_clip(config, dataset_folder, state, Path(scratch))
        model = make_identity(config)
        kept, load = f"embeddings/{content_key(**model)}", loader(config, model)
        text_CD = embed_classes(texts, VectorCache(state, f"{kept}/texts"), load)
        temporary.mkdir()
        vectors = VectorFile(temporary / "vectors", text_CD.shape[1])
        reused = embed_rows(table, row_N, VectorCache(state, f"{kept}/pictures"), load, config, vectors)
        vectors.write_images(temporary / IMAGES_FILE, table.sample_id[row_N])
        np.save(temporary / TEXTS_FILE, text_CD, allow_pickle=False)
        counts = {"pictures": len(row_N), "embedded": len(row_N) - reused, "reused": reused}
        made_of = {"dataset": {"name": table.info.name, "digest": table.info.digest}, "shard": shard, "prompts": texts}
        digests = {name: file_digest(temporary / name) for name in (IMAGES_FILE, TEXTS_FILE)}
        write_json(temporary / INFO_FILE, model | made_of | counts | {"width": text_CD.shape[1], "digests": digests})
    log.info("embedded %s, reused %s", f"{counts['embedded']:,}", f"{reused:,}")
    return counts | {"seconds": time.monotonic() - started}


def make_identity(config: ClipConfig) -> dict[str, Any]:
    """All that a vector depends on beside its picture; the preprocessing follows from model, tag and open_clip."""
    return {
        "schema_version": SCHEMA_VERSION,
        "model": config.clip,
        "pretrained": config.pretrained,
        "model_config": file_digest(config.clip_config) if config.clip_config else "",
        "weights": file_digest(find_weights(config)),
        "precision": precision_of(config),
        "open_clip": version("open_clip_torch"),
    }


def loader(config: ClipConfig, identity: dict[str, Any]) -> Callable[[], "Clip"]:
    """A function that loads the model when it is first called: a shard that is all reused does without."""

    @cache
    def load() -> "Clip":
        from secateur.semantics.clip import load_clip  # takes seconds to import

        clip = load_clip(config)
        log.info("CLIP %s, weights %s, on %s in %s", config.clip, identity["weights"][:12], clip.device, clip.precision)
        return clip

    return load


def embed_classes(texts: Mapping[str, Sequence[str]], kept: VectorCache, load: Callable[[], "Clip"]) -> Floats:
    """One text embedding per class, the mean over its texts at length 1, float32 (C, D).

    Args:
        texts: Of each class, in the order of the classes.
        kept: Embeddings of texts from before; new ones are added.
        load: Gives the model.

    Raises:
        InputError: The model gives no numbers.
    """
    every = list(dict.fromkeys(text for of_class in texts.values() for text in of_class))
    vector_of: dict[str, Floats] = {}
    for position_B, vector_BD in kept.find(every):
        vector_of |= {every[place]: vector_D for place, vector_D in zip(position_B, vector_BD, strict=True)}
    new = [text for text in every if text not in vector_of]
    if new:
        vector_TD = load().encode_texts(new).numpy()
        if not np.isfinite(vector_TD).all():
            raise InputError(f"clip must give finite embeddings, got others for texts in {load().precision}")
        kept.keep(new, vector_TD)
        vector_of |= dict(zip(new, vector_TD, strict=True))
    return unit(np.stack([np.mean([vector_of[text] for text in of_class], axis=0) for of_class in texts.values()]))


def embed_rows(
    table: ImageTable,
    row_N: Positions,
    kept: VectorCache,
    load: Callable[[], "Clip"],
    config: ClipConfig,
    out: VectorFile,
) -> int:
    """Bring the vectors of rows into a file, those from before and then the new ones.

    Returns:
        How many were embedded before.
    """
    sample_ids = table.sample_id[row_N]
    new_N = np.ones(len(row_N), dtype=bool)
    for position_B, vector_BD in kept.find(sample_ids.tolist()):
        out.put(position_B, vector_BD)
        new_N[position_B] = False
    new = np.flatnonzero(new_N)
    if len(new):
        from secateur.semantics.encoding import encode_rows

        batches = encode_rows(load(), table, row_N[new], batch_of(config), workers_of(config))
        done = 0
        for vector_BD in in_chunks(batches):
            position_B = new[done : done + len(vector_BD)]
            kept.keep(sample_ids[position_B].tolist(), vector_BD)
            out.put(position_B, vector_BD)
            done += len(vector_BD)
    return len(row_N) - len(new)


def in_chunks(batches: Iterator[npt.NDArray[np.float16]]) -> Iterator[npt.NDArray[np.float16]]:
    """Join batches until there are enough of them, or a minute has passed."""
    waiting: list[npt.NDArray[np.float16]] = []
    since = time.monotonic()
    for vector_BD in batches:
        waiting.append(vector_BD)
        if sum(map(len, waiting)) >= CHUNK_PICTURES or time.monotonic() - since >= CHUNK_SECONDS:
            yield np.concatenate(waiting)
            waiting, since = [], time.monotonic()
    if waiting:
        yield np.concatenate(waiting)
