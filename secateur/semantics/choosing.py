"""The label model that pruning asks: by CLIP's texts, by neighbours, or by more; and what to do where CLIP fits not."""

from secateur.semantics.clip_fit import judge_clip
from secateur.semantics.consistency import LabelModel, Labels, Singles
from secateur.semantics.mixture import fit_label_model
from secateur.semantics.neighbours import copies, fit_neighbours, search
from secateur.semantics.signals import find_wrong_labels
from secateur.streams import Keys


def choose_label_model(
    image_ND: Singles, text_CD: Singles, label_N: Labels, key_N: Keys, source: str
) -> tuple[LabelModel, str, str | None]:
    """Fit the label model that a source gives.

    Args:
        image_ND: Unit vectors of the pictures.
        text_CD: Unit vectors of the class texts.
        label_N: Given labels, in [0, C).
        key_N: Of the samples.
        source: "clip", by the texts of the classes; "adapted", by the same behind adapters that learned from other
            samples; "neighbours", by the labels of the nearest pictures; "combined", by texts, neighbours and a probe.

    Returns:
        The label model, what it rests on, and why that is not the source, where it is not.
    """
    classes = len(text_CD)
    if source == "neighbours":
        return fit_neighbours(image_ND, label_N, classes), source, None
    if source == "combined":
        findings = find_wrong_labels(image_ND, label_N, text_CD, classes=classes, keys_N=key_N)
        model, fit = findings.label_model(), findings.clip_fit
        assert fit is not None
    else:
        model = fit_label_model(image_ND @ text_CD.T, label_N)
        fit = judge_clip(image_ND, text_CD, label_N, key_N)
    if not fit.fits:
        model = find_wrong_labels(image_ND, label_N, classes=classes, keys_N=key_N).label_model()
        return model, "neighbours and probe", f"{fit.reason}; neighbours and a probe take its place"
    if source == "adapted":
        model = fit_adapted(image_ND, text_CD, label_N, key_N, model)
    return model, source, None


def fit_adapted(image_ND: Singles, text_CD: Singles, label_N: Labels, key_N: Keys, plain: LabelModel) -> LabelModel:
    """The label model behind adapters, which learn from each label as far as the plain one believes it."""
    from secateur.semantics.adapters import adapted_similarity
    from secateur.semantics.probe import draw_folds

    fold_N = draw_folds(key_N, copies(search(image_ND)))
    trust_N = plain.label_probability_N
    return fit_label_model(
        adapted_similarity(image_ND, text_CD, label_N, fold_N, plain.temperature, key_N, trust_N), label_N
    )
