"""Choose the settings of the embedded CLIP by cross-validation inside the reference split, which no other step sees.

    python benchmarks/digits_clip.py

Neither the labels of the other splits nor the clean labels are read. The table goes to records/digits-clip/README.md.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import torch

from secateur.dataset import open_table
from secateur.dataset.images import decode
from secateur.dataset.sources import IngestConfig, ingest
from secateur.semantics.config import ContrastiveConfig
from secateur.semantics.contrastive import train_clip
from secateur.semantics.digits_clip import IMAGE_SIZE, MODEL
from secateur.streams import shuffled

FOLDS = 3
RECORD = Path(__file__).parent / "records" / "digits-clip" / "README.md"
DEFAULT = ContrastiveConfig()


def with_width(width: int) -> dict:
    """The model with another width of its image tower."""
    return MODEL | {"vision_cfg": MODEL["vision_cfg"] | {"width": width}}


SETTINGS = {
    "default": (MODEL, DEFAULT),
    "half the steps": (MODEL, replace(DEFAULT, steps=DEFAULT.steps // 2)),
    "half the learning rate": (MODEL, replace(DEFAULT, learning_rate=DEFAULT.learning_rate / 2)),
    "no rotation, no change of scale": (MODEL, replace(DEFAULT, rotation=0.0, scale=0.0)),
    "no augmentation": (MODEL, replace(DEFAULT, rotation=0.0, scale=0.0, shift=0.0, noise=0.0)),
    "half the width": (with_width(MODEL["vision_cfg"]["width"] // 2), DEFAULT),
}


def zero_shot_accuracy(model_config: dict, weights: dict, pictures: torch.Tensor, label_N: np.ndarray, info) -> float:
    """Fraction of held-out pictures whose caption the model likes best."""
    model = open_clip.CLIP(**model_config)
    model.load_state_dict(weights)
    model.eval()
    tokenizer = open_clip.SimpleTokenizer(context_length=model_config["text_cfg"]["context_length"])
    texts = tokenizer([prompt.replace("{}", name) for name in info.classes for prompt in info.prompts])
    with torch.inference_mode():
        text_CPD = model.encode_text(texts, normalize=True).reshape(len(info.classes), len(info.prompts), -1)
        similarity_NC = model.encode_image(pictures, normalize=True) @ text_CPD.mean(1).T
    return float((similarity_NC.argmax(1).numpy() == label_N).mean())


def main() -> None:
    """Train each setting on all folds but one, and score it on that one."""
    with tempfile.TemporaryDirectory() as folder:
        ingest(IngestConfig(), Path(folder) / "data", Path(folder) / "unused.parquet")
        table = open_table(Path(folder) / "data").part("reference")
        preprocess = open_clip.image_transform(IMAGE_SIZE, is_train=False)
        pictures = torch.stack([preprocess(decode(table.image(i))) for i in range(len(table))])
        captions = np.array(table.captions())
        label_N = np.array([table.info.classes.index(caption) for caption in captions])
    folds = np.array_split(shuffled(table.key, "benchmark folds"), FOLDS)
    rows = []
    for name, (model_config, config) in SETTINGS.items():
        scores = []
        for held_out in folds:
            rest = np.setdiff1d(np.arange(len(table)), held_out)
            weights = train_clip(model_config, pictures[rest], captions[rest].tolist(), table.info.prompts, config)
            scores.append(zero_shot_accuracy(model_config, weights, pictures[held_out], label_N[held_out], table.info))
        each = " ".join(f"{100 * score:.1f}" for score in scores)
        rows.append(f"| {name} | {100 * np.mean(scores):.1f} | {each} |")
        print(rows[-1], flush=True)
    head = [
        "# Settings of the embedded CLIP",
        "",
        f"Zero-shot accuracy in percent on held-out parts of the reference split ({len(table)} captioned digits):",
        f"{FOLDS}-fold cross-validation, one training seed, one CPU thread, torch {torch.__version__},",
        f"open_clip {open_clip.__version__}. Made by `python benchmarks/digits_clip.py`.",
        "",
        "| setting | mean | folds |",
        "|---|---|---|",
    ]
    RECORD.write_text("\n".join([*head, *rows]) + "\n")


if __name__ == "__main__":
    main()
