"""The embedded CLIP: a small open_clip model, trained once on the captioned digits that no other step sees.

It stands in where no pretrained weights can be had, and is loaded from a file like any other.
"""

import logging
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from secateur.dataset.images import decode
from secateur.dataset.table import ImageTable, open_table
from secateur.errors import InputError
from secateur.files import replacing, write_json
from secateur.semantics.config import EMBEDDED, ClipConfig, ContrastiveConfig
from secateur.state import DurableState, content_key

log = logging.getLogger(__name__)

WEIGHTS_FILE, CONFIG_FILE = f"{EMBEDDED}.safetensors", f"{EMBEDDED}.json"
IMAGE_SIZE = 32
MODEL: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": IMAGE_SIZE},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
TRAINING = ContrastiveConfig()


def embedded_clip(config: ClipConfig, dataset_folder: str | Path, state: DurableState, folder: Path) -> ClipConfig:
    """Bring the embedded CLIP into a folder: out of the durable state, or trained now.

    Args:
        config: Resolved.
        dataset_folder: The table.
        state: Where it is kept.
        folder: Where the weights and the model config are put.

    Returns:
        The config with these files in it.

    Raises:
        InputError: The table has no captioned pictures.
    """
    reference = open_table(dataset_folder).part("reference")
    if not len(reference):
        raise InputError(f"clip must not be {EMBEDDED!r} for a data set without captioned pictures to train it on")
    name, files = f"{EMBEDDED}/{training_key(reference)}", (CONFIG_FILE, WEIGHTS_FILE)
    if state.fetch(name, folder, files):
        log.info("reusing the small CLIP that was trained before, %s", name)
    else:
        train(reference, folder)
        state.keep(name, folder, files)
    return replace(config, checkpoint=str(folder / WEIGHTS_FILE), clip_config=str(folder / CONFIG_FILE))


def training_key(reference: ImageTable) -> str:
    """Name the weights by all that they depend on."""
    return content_key(
        samples=reference.sample_id.tolist(),
        captions=reference.captions(),
        prompts=list(reference.info.prompts),
        model=MODEL,
        training=asdict(TRAINING),
        versions={package: version(package) for package in ("open_clip_torch", "torch")},
    )


def train(reference: ImageTable, folder: Path) -> None:
    """Train the model on captioned pictures, and write its weights and config into a folder."""
    # Here, since a run that finds its weights does without torch for as long as it can.
    import open_clip
    import torch
    from safetensors.torch import save_file

    from secateur.semantics.contrastive import train_clip

    log.info("training a small CLIP on %d captioned pictures, once", len(reference))
    preprocess = open_clip.image_transform(IMAGE_SIZE, is_train=False)
    picture_N3HW = torch.stack([preprocess(decode(reference.image(i))) for i in range(len(reference))])
    weights = train_clip(MODEL, picture_N3HW, reference.captions(), reference.info.prompts, TRAINING)
    write_json(folder / CONFIG_FILE, MODEL)
    with replacing(folder / WEIGHTS_FILE) as temporary:
        save_file(weights, temporary)
