"""Which labels are probably wrong: CLIP, neighbours and a probe, combined with fitted weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from secateur.errors import InputError
from secateur.semantics.clip_fit import judge_clip
from secateur.semantics.consistency import Floats, LabelModel, Labels, Singles, agrees
from secateur.semantics.embeddings import unit
from secateur.semantics.findings import Estimate, Findings, margins, suggestions, with_probability
from secateur.semantics.neighbours import (
    Near,
    class_diversity,
    copies,
    neighbour_probability,
    search,
    without_copies,
)
from secateur.streams import Keys, sample_keys, shuffled

WIDTHS = (0.02, 0.05, 0.1, 0.2, 0.4)
SAMPLES_PER_FACTOR = 100  # of the calibration of CLIP's similarities, below which it is diagonal
NOT_NEGATIVE = (0.0, None)
PARTS = 10  # of the data, whose rates tell how far the whole one's may be off
QUANTILE = 2.26  # of Student's t at 97.5 % with one degree of freedom less than parts


def find_wrong_labels(
    embedding_ND: npt.NDArray[np.floating],
    label_N: npt.NDArray[np.integer],
    text_CD: npt.NDArray[np.floating] | None = None,
    *,
    classes: int,
    keys_N: Keys | None = None,
    seed: int = 0,
    near: Near | None = None,
) -> Findings:
    """Judge every label by CLIP's texts, by the nearest pictures, and by a probe that did not learn from it.

    log p = a * log p_clip + b * log p_neighbours + c * log p_probe with a, b, c >= 0 and the transitions T of the
    labels fitted to the given ones (Northcutt et al., JAIR 2021, have T counted); P(wrong) = 1 - t[y]. Neighbours vote
    by the probability that CLIP gives their label. The rate of wrong labels comes from CLIP alone, and P(wrong) is
    shifted to have it for its mean: what learned from the labels explains their noise away. Where CLIP does not fit, or
    no texts are given, the other two do all that, and the rate is a lower one still.

    Args:
        embedding_ND: Vectors of the pictures, of any length.
        label_N: Given labels, in [0, C).
        text_CD: Vectors of the class texts; None for no CLIP channel.
        classes: C.
        keys_N: Of the samples, for the draw of folds; hashes of their positions by default.
        seed: Of that draw.
        near: What `search` found for these embeddings; searched for anew by default.

    Raises:
        InputError: Labels out of range or another number of them, or an embedding that is zero or not finite.
    """
    from secateur.semantics.mixture import fit_mixture
    from secateur.semantics.probe import draw_folds, probe_probability

    given_N = check_labels(label_N, len(embedding_ND), classes)
    key_N = sample_keys(np.arange(len(given_N))) if keys_N is None else keys_N
    near = near or search(embedding_ND)
    image_ND, rows_N = unit(embedding_ND), np.arange(len(given_N))
    group_N = copies(near)
    near = without_copies(near, group_N)
    channels, clip_fit, trust_N, rate = {}, None, None, None
    if text_CD is not None:
        similarity_NC = image_ND @ unit(text_CD).T
        clip_NC, clip_trust_N, _, clip_rate = clip_channel(similarity_NC, given_N, key_N)
        clip_fit = judge_clip(image_ND, unit(text_CD), given_N, key_N, near)
        channels["clip"] = clip_NC
        if clip_fit.fits:
            trust_N, rate = clip_trust_N, clip_rate
    channels["neighbours"] = neighbour_channel(near, given_N, classes, trust_N)
    channels["probe"] = probe_probability(image_ND, given_N, draw_folds(key_N, group_N, seed), classes)
    used = [name for name in channels if name != "clip" or trust_N is not None]
    stack = [channels[name] for name in used]
    mixture = fit_mixture(stack, given_N, weighted, np.full(len(stack), 1 / len(stack)), NOT_NEGATIVE)
    weight = dict.fromkeys(channels, 0.0) | dict(zip(used, mixture.parameter.tolist(), strict=True))
    posterior_NC = mixture.posterior(stack, given_N)
    model = as_label_model(mixture.log_probability(stack), posterior_NC, mixture.transition_CC, given_N)
    if rate is None:
        rate = rate_of_parts(
            stack, given_N, weighted, mixture.parameter, key_N, 1 - model.label_probability_N, NOT_NEGATIVE
        )
    findings = Findings(
        probability_wrong_N=1 - model.label_probability_N,
        suggested_N=suggestions(posterior_NC, given_N, 1 - model.label_probability_N),
        posterior_NC=model.posterior_NC,
        margin_N=margins(posterior_NC, given_N),
        signal={name: channel_NC[rows_N, given_N].astype(np.float64) for name, channel_NC in channels.items()},
        weight=weight,
        rate=rate,
        audited=0,
        clip_fit=clip_fit,
        diversity_N=class_diversity(image_ND, given_N),
        model=model,
    )
    wrong_N = shifted(findings.probability_wrong_N, rate.value)
    return with_probability(findings, given_N, wrong_N, wrong_N, rate, audited=0)


def shifted(probability_N: Floats, mean: float) -> Floats:
    """Probabilities with another mean, float64 (N,): a constant is added to all log-odds, so their order stays."""
    from scipy.optimize import brentq
    from scipy.special import expit, logit

    odds_N = logit(np.clip(probability_N, 1e-9, 1 - 1e-9))
    reach = 40.0
    if not expit(odds_N - reach).mean() < mean < expit(odds_N + reach).mean():
        return probability_N
    return np.asarray(expit(odds_N + brentq(lambda step: expit(odds_N + step).mean() - mean, -reach, reach, xtol=1e-6)))


def check_labels(label_N: npt.NDArray[np.integer], size: int, classes: int) -> Labels:
    """The labels as int32.

    Raises:
        InputError: There is not one for each embedding, or one is no class.
    """
    if len(label_N) != size:
        raise InputError(f"labels must be one for each of {size} embeddings, got {len(label_N)}")
    if size and not 0 <= label_N.min() <= label_N.max() < classes:
        raise InputError(f"labels must be in [0, {classes}), got {label_N.min()} to {label_N.max()}")
    return label_N.astype(np.int32)


def clip_channel(similarity_NC: Singles, label_N: Labels, key_N: Keys) -> tuple[Singles, Floats, float, Estimate]:
    """Calibrate CLIP's similarities to probabilities.

    log p = log softmax(M s + b), matrix scaling (Guo et al., ICML 2017), fitted together with the transitions; M is
    diagonal where there are fewer than 100 samples for each of its factors.

    Args:
        similarity_NC: Cosines of pictures and class texts.
        label_N: Given labels.
        key_N: Of the samples.

    Returns:
        log p, float32 (N, C); the probability that the given label is right, float64 (N,); the mean of M's diagonal,
        as a factor of the cosines; and the rate of wrong labels.
    """
    from secateur.semantics.mixture import fit_mixture

    size, classes = similarity_NC.shape
    spread = float(similarity_NC.std()) or 1.0
    full = size >= SAMPLES_PER_FACTOR * classes**2
    scale = np.eye(classes).ravel() if full else np.ones(classes)
    channels, start = [similarity_NC / spread], np.concatenate([scale, np.zeros(classes)])
    logits = scaled_by_matrix if full else scaled
    mixture = fit_mixture(channels, label_N, logits, start)
    right_N = mixture.posterior(channels, label_N)[np.arange(size), label_N].astype(np.float64)
    scale = mixture.parameter[:-classes]
    temperature = float((scale.reshape(classes, classes).diagonal() if full else scale).mean()) / spread
    rate = rate_of_parts(channels, label_N, logits, mixture.parameter, key_N, 1 - right_N)
    return mixture.log_probability(channels), right_N, temperature, rate


def weighted(parameter: Any, channels: Sequence[Any]) -> Any:
    """Logits of a combination: the channels times their weights."""
    return sum(factor * channel for factor, channel in zip(parameter, channels, strict=True))


def scaled(parameter: Any, channels: Sequence[Any]) -> Any:
    """Logits of similarities, with a factor and an offset for each class."""
    classes = channels[0].shape[1]
    return channels[0] * parameter[:classes] + parameter[classes:]


def scaled_by_matrix(parameter: Any, channels: Sequence[Any]) -> Any:
    """Logits of similarities, with a matrix and an offset for each class."""
    classes = channels[0].shape[1]
    return channels[0] @ parameter[:-classes].reshape(classes, classes) + parameter[-classes:]


def rate_of_parts(
    channels: Sequence[Singles],
    label_N: Labels,
    logits: Any,
    parameter: Floats,
    key_N: Keys,
    wrong_N: Floats,
    bounds: tuple[float | None, float | None] = (None, None),
) -> Estimate:
    """The mean probability of being wrong, with a 95 % interval from fits to ten disjoint parts of the data."""
    from secateur.semantics.mixture import fit_mixture

    value, order, rates = float(wrong_N.mean()), shuffled(key_N, "rate"), []
    parts = min(PARTS, len(label_N))
    for start in range(parts):
        part = np.sort(order[start::parts])
        rows, given = [channel[part] for channel in channels], label_N[part]
        fitted = fit_mixture(rows, given, logits, parameter, bounds, right=1 - value)
        rates.append(1 - float(fitted.posterior(rows, given)[np.arange(len(part)), given].mean()))
    reach = QUANTILE * float(np.std(rates, ddof=1)) / np.sqrt(parts) if parts > 1 else 1.0
    return Estimate(value, max(0.0, float(value - reach)), min(1.0, float(value + reach)))


def neighbour_channel(near: Near, label_N: Labels, classes: int, trust_N: Floats | None) -> Singles:
    """Log-probability of every class by the neighbours, at the width under which the given labels are likeliest."""
    rows_N, best, found = np.arange(len(label_N)), -np.inf, np.zeros(0, dtype=np.float32)
    for width in WIDTHS:
        log_p_NC = np.log(neighbour_probability(near, label_N, classes, trust_N, width))
        likelihood = float(log_p_NC[rows_N, label_N].mean())
        if likelihood > best:
            best, found = likelihood, log_p_NC
    return found


def as_label_model(log_p_NC: Singles, posterior_NC: Singles, transition_CC: Floats, label_N: Labels) -> LabelModel:
    """What the pruning methods are told."""
    rows_N, choice_N = np.arange(len(label_N)), log_p_NC.argmax(axis=1)
    return LabelModel(
        temperature=1.0,
        transition_CC=transition_CC,
        consistency_N=np.minimum(log_p_NC[rows_N, label_N].astype(np.float64), 0.0),
        label_probability_N=np.clip(posterior_NC[rows_N, label_N].astype(np.float64), 0.0, 1.0),
        suggested_N=posterior_NC.argmax(axis=1).astype(np.int32),
        posterior_NC=posterior_NC.astype(np.float16),
        probability_NC=np.exp(log_p_NC).astype(np.float16),
        zero_shot_agreement=float((choice_N == label_N).mean()),
        fits=agrees(choice_N, label_N),
    )
