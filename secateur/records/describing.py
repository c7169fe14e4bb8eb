"""What a version says of itself: `version.json` for programs, a data card and a model card for people."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from safetensors import deserialize

from secateur.dataset.table import ImageTable, open_table
from secateur.errors import InputError
from secateur.pruning.mask import Mask
from secateur.pruning.method import Reason
from secateur.records.git import without_credentials
from secateur.records.outputs import Outputs, facts
from secateur.records.registry.catalogue import SCHEMA_VERSION

CARDS = {"DATA_CARD.md": "data_card.md.j2", "MODEL_CARD.md": "model_card.md.j2"}
REASONS = {
    Reason.KEPT: "in the pruned data set",
    Reason.FLOOR: "in the pruned data set, so that its class keeps enough",
    Reason.RELABELLED: "in the pruned data set, and trained towards another label: the given one is probably wrong",
    Reason.INCONSISTENT: "dropped: its label is probably wrong",
    Reason.REDUNDANT: "dropped: easy, with a loss below the median",
    Reason.HARD: "dropped: with a loss above the median, yet not among those chosen",
    Reason.UNUSED: "dropped by chance",
}
UNSAFE_IN_TABLES = str.maketrans({"|": "\\|", "\n": " ", "\r": " ", "<": "&lt;", "`": "'"})


def describe(outputs: Outputs, dataset_folder: str | Path, run_id: str, tracking_uri: str) -> dict[str, Any]:
    """What `version.json` says.

    Args:
        outputs: What the steps wrote.
        dataset_folder: The table.
        run_id: The MLflow run.
        tracking_uri: Where that is.

    Raises:
        InputError: The mask is not of this table.
    """
    said, run, mask = facts(outputs, run_id), outputs.run, outputs.mask
    train = open_table(dataset_folder).part("train")
    if train.sample_id.tolist() != mask.sample_id.tolist():
        raise InputError(f"mask must have the training samples of its data set, got {len(mask)} others")
    weights = outputs.model_folder / f"seed-{run['seeds'][0]}" / "weights.safetensors"
    kept = ("name", "digest", "counts", "classes", "revision")
    return said | {
        "schema_version": SCHEMA_VERSION,
        "published": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": {name: outputs.dataset[name] for name in kept if name in outputs.dataset},
        "reasons": mask.reasons,
        "per_class": class_counts(train, mask),
        "arms": outputs.figures["arms"],
        "noise": outputs.figures.get("noise"),
        "alarms": run.get("alarms", []),
        "cost": run.get("cost", {}),
        "clip": run.get("semantics"),
        "architecture": run.get("architecture", {}),
        "mlflow": said["mlflow"] | {"tracking_uri": without_credentials(tracking_uri)},
        "model": {"weights": weights_digest(tensors(weights))},
    }


def tensors(file: Path) -> list[bytes]:
    """The contents of all tensors in a safetensors file, which numpy may have no type for."""
    return [entry["data"] for _, entry in deserialize(file.read_bytes())]  # type: ignore[no-untyped-call]


def class_counts(train: ImageTable, mask: Mask) -> list[dict[str, Any]]:
    """Samples, kept ones and reasons of each class."""
    return [
        {"class": name, "samples": int(here.sum()), "kept": int(mask.kept[here].sum()), "reasons": counts(mask, here)}
        for name, here in ((name, train.label == label) for label, name in enumerate(train.info.classes))
    ]


def counts(mask: Mask, here_N: npt.NDArray[np.bool_]) -> dict[str, int]:
    """Number of samples for each reason, among some."""
    return dict(sorted(Counter(mask.reason[here_N].tolist()).items()))


def weights_digest(contents: Iterable[bytes]) -> str:
    """SHA-256 over the contents of all weights, whatever their names, order or file format."""
    return hashlib.sha256(b"".join(sorted({hashlib.sha256(c).digest() for c in contents}))).hexdigest()


def make_cards(said: Mapping[str, Any]) -> dict[str, str]:
    """The cards, in Markdown; `{version}` stands in them for the version that has no name yet.

    Args:
        said: What `describe` gave.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("secateur.records", ""),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown; `cell` takes the sting out of names
    )
    environment.filters |= {"percent": percent, "cell": cell, "count": lambda value: f"{round(value):,}"}
    context = {**said, "reason_texts": REASONS, "difference": difference(said["arms"])}
    return {card: environment.get_template(template).render(context) for card, template in CARDS.items()}


def percent(value: float | None) -> str:
    """A fraction in percent.

    >>> percent(0.9642)
    '96.4 %'
    """
    return "unknown" if value is None else f"{100 * value:.1f} %"


def cell(value: object) -> str:
    """A value that a user gave, for a cell of a Markdown table.

    >>> cell("<b>")
    '&lt;b>'
    """
    return str(value).translate(UNSAFE_IN_TABLES)


def difference(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """The pruned arm beside each other one, in words."""
    first = arms[0]
    sentences = []
    for arm in arms[1:]:
        points = 100 * (first["accuracy_mean"] - arm["accuracy_mean"])
        times = first["backward_samples"] / max(1, arm["backward_samples"])
        words = "above" if points >= 0 else "below"
        sentences.append(
            f"{abs(points):.1f} points {words} `{arm['name']}`, with {times:.2f} times as many samples to train on"
        )
    return sentences
