"""Galleries: pictures small enough to lie inside a report; those dropped for each reason."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from secateur.dataset import ImageTable
from secateur.dataset.images import decode
from secateur.evaluation.results import FOUND
from secateur.pruning.mask import Mask

SIDE = 96  # pixels of the longer side, at most
TINY = 32  # pixels of the longer side up to which every pixel is kept and shown
CLEAREST, CLOSEST = 16, 8  # pictures from either end of a reason

ABOUT = {
    "inconsistent": "Dropped because CLIP finds the given label unlikely. Labels to check first.",
    "relabelled": "Kept, but trained towards CLIP's label, as the given one is unlikely. Labels to check first.",
    "redundant": "Dropped with a loss below the median: the model knows them already.",
    "hard": "Dropped with a loss above the median: not the easiest, and perhaps mislabelled, unusual, or simply "
    "difficult.",
    "unused": "Left out by chance; nothing is wrong with them.",
}
DOUBTFUL = "doubtful"
ABOUT_DOUBTFUL = "Kept, although CLIP would rather give them another label. Wrong labels that were missed are here."


@dataclass(frozen=True)
class Picture:
    """One tile of a gallery; None where something is not known."""

    uri: str
    large: bool  # so large that it looks better smoothed than with its pixels enlarged
    sample_id: str
    source: str
    given: str
    suggested: str | None  # only where it differs from the given label
    probability: float | None  # that the given label is right
    loss: float | None = None
    truth: str | None = None  # the label known to be true
    split: str | None = None

    @property
    def wrong(self) -> bool | None:
        """Whether the given label is known to be wrong."""
        return None if self.truth is None else self.truth != self.given


@dataclass(frozen=True)
class Gallery:
    """Pictures with one reason: those furthest from the decision's edge, and those nearest to it."""

    reason: str
    about: str
    count: int
    clearest: Sequence[Picture]
    closest: Sequence[Picture]


def galleries(table: ImageTable, mask: Mask, truth_N: npt.NDArray[np.int32]) -> list[Gallery]:
    """Galleries of all reasons to drop or relabel, and of kept samples with a doubtful label.

    Args:
        table: The training rows, in the order of the mask.
        mask: What was kept.
        truth_N: True labels, int32 (N,); -1 where unknown.
    """

    def pictures(rows: npt.NDArray[np.int64]) -> list[Picture]:
        return [make_picture(int(i), table, mask, int(truth_N[i])) for i in rows]

    result = []
    for reason, about in ABOUT.items():
        evidence_N = mask.label_probability if reason in FOUND else mask.score
        members = np.flatnonzero(mask.reason == reason)
        members = members[np.argsort(evidence_N[members], kind="stable")]
        fits = len(members) <= CLEAREST + CLOSEST
        clearest, closest = (members, members[:0]) if fits else (members[:CLEAREST], members[-CLOSEST:][::-1])
        result.append(Gallery(reason, about, len(members), pictures(clearest), pictures(closest)))
    suggested_N = (mask.suggested_label >= 0) & (mask.suggested_label != table.label)
    doubtful = np.flatnonzero(mask.kept & suggested_N & (mask.reason != "relabelled"))
    doubtful = doubtful[np.argsort(mask.label_probability[doubtful], kind="stable")]
    result.append(Gallery(DOUBTFUL, ABOUT_DOUBTFUL, len(doubtful), pictures(doubtful[: CLEAREST + CLOSEST]), []))
    return [gallery for gallery in result if gallery.count]


def make_picture(index: int, table: ImageTable, mask: Mask, truth: int) -> Picture:
    """A row's tile."""
    classes, given, suggested = table.info.classes, int(table.label[index]), int(mask.suggested_label[index])
    probability, loss = float(mask.label_probability[index]), float(mask.loss[index])
    uri, large = thumbnail(table.image(index))
    return Picture(
        uri=uri,
        large=large,
        sample_id=str(table.sample_id[index]),
        source=table.source(index),
        given=classes[given],
        suggested=classes[suggested] if suggested not in (-1, given) else None,
        probability=None if np.isnan(probability) else probability,
        loss=None if np.isnan(loss) else loss,
        truth=classes[truth] if truth >= 0 else None,
    )


def thumbnail(image: bytes) -> tuple[str, bool]:
    """A picture as a data URI, and whether it is large.

    A tiny one is written as PNG, and the page enlarges its pixels; others, scaled down to `SIDE`, as JPEG, which takes
    a fifth of the room.
    """
    picture, out = decode(image), io.BytesIO()
    large = max(picture.size) > TINY
    if large:
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        picture.save(out, "JPEG", quality=80, optimize=True)
    else:
        picture.save(out, "PNG", optimize=True)
    kind = "jpeg" if large else "png"
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}", large
