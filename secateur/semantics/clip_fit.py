"""Does this CLIP fit this data? Its first choices beside those of the neighbours."""

import numpy as np
import numpy.typing as npt

from secateur.semantics.consistency import agrees
from secateur.semantics.findings import ClipFit
from secateur.semantics.neighbours import Near, copies, neighbour_probability, search, without_copies
from secateur.streams import Keys, shuffled

LOOKED_AT = 20_000  # samples that tell; all of them would cost a search among all
SHARE = 0.5  # of what neighbours agree with the labels above chance, CLIP must reach


def judge_clip(
    embedding_ND: npt.NDArray[np.floating],
    text_CD: npt.NDArray[np.floating],
    label_N: npt.NDArray[np.int32],
    key_N: Keys,
    near: Near | None = None,
) -> ClipFit:
    """Say whether a CLIP fits the given labels.

    It does if its first choice agrees with them more than chance would, by five standard deviations, and at least half
    as far above chance as that of the nearest samples does, which know the labels but no class names.

    Args:
        embedding_ND: Unit vectors of the pictures.
        text_CD: Unit vectors of the classes.
        label_N: Given labels, in [0, C).
        key_N: Of the samples.
        near: The nearest of each sample, without copies; without it, 20,000 samples are drawn and searched.
    """
    if near is None:
        part = np.sort(shuffled(key_N, "clip fit")[:LOOKED_AT])
        embedding_ND, label_N = embedding_ND[part], label_N[part]
        near = search(embedding_ND)
        near = without_copies(near, copies(near))
    classes = len(text_CD)
    similarity_NC = (embedding_ND @ text_CD.T).astype(np.float64)
    choice_N = similarity_NC.argmax(axis=1)
    voted_N = neighbour_probability(near, label_N, classes).argmax(axis=1)
    zero_shot, neighbour = float((choice_N == label_N).mean()), float((voted_N == label_N).mean())
    chance = chance_agreement(choice_N, label_N, classes)
    above = agrees(choice_N, label_N)
    enough = zero_shot - chance >= SHARE * (neighbour - chance_agreement(voted_N, label_N, classes))
    figures = (
        f"CLIP's first choice is the given label for {100 * zero_shot:.1f} % of the samples, chance would be "
        f"{100 * chance:.1f} %, and that of the nearest samples for {100 * neighbour:.1f} %"
    )
    verdict = "CLIP fits" if above and enough else "CLIP does not fit"
    return ClipFit(above and enough, f"{verdict}: {figures}", zero_shot, neighbour)


def chance_agreement(choice_N: npt.NDArray[np.integer], label_N: npt.NDArray[np.integer], classes: int) -> float:
    """The fraction in which two labellings would agree if they were independent."""
    share_C, chosen_C = (np.bincount(one_N, minlength=classes) / len(label_N) for one_N in (label_N, choice_N))
    return float(share_C @ chosen_C)
