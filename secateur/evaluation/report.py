"""The report: one HTML page that holds all it shows, and a short summary in Markdown."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from secateur.dataset import ImageTable
from secateur.evaluation import arm_figures, mask_figures
from secateur.evaluation.gallery import DOUBTFUL, galleries
from secateur.evaluation.page import count, percent, points, render
from secateur.evaluation.results import FOUND, Arm, ArmRun, Results
from secateur.evaluation.scores import per_class_accuracy
from secateur.pruning.mask import Mask

TEMPLATE = "report.html.j2"
MAX_CONFUSION = 20  # classes up to which the whole confusion matrix is shown
TOP_CONFUSIONS = 20  # pairs shown where there are more classes


def comparison(pruned: Arm, baseline: Arm, label: str) -> str:
    """One sentence about the pruned arm beside a baseline."""
    difference = pruned.accuracy_mean - baseline.accuracy_mean
    how = "more than" if difference >= 0 else "less than"
    text = f"{abs(100 * difference):.1f} points {how} {label}"
    if not baseline.same_budget(pruned):
        return f"{text}, which trained on {baseline.budget_ratio(pruned):.2f} times as many samples"
    if baseline.seeds == pruned.seeds and len(pruned.seeds) > 1:
        each = [a - b for a, b in zip(pruned.accuracy, baseline.accuracy, strict=True)]
        text += f" ({', '.join(map(points, each))} seed by seed)"
    return text


def all_same_budget(results: Results) -> bool:
    """Whether all arms trained on the same number of samples."""
    return all(arm.same_budget(results.arms[0]) for arm in results.arms)


def headline(results: Results) -> str:
    """The pruned arm beside all baselines, in one sentence; empty where there are none."""
    labels = arm_figures.arm_labels(results)
    parts = [comparison(results.arms[0], a, label) for a, label in zip(results.arms[1:], labels[1:], strict=True)]
    start = "That is" if not all_same_budget(results) else "With as many samples to train on, that is"
    return f"{start} {'; '.join(parts)}." if parts else ""


def noise_sentence(results: Results) -> str:
    """How many wrong labels the mask dropped, in words."""
    noise = results.noise
    if noise is None:
        return "True labels are not known here, so it cannot be said how many wrong labels were dropped."
    if not noise.wrong:
        return f"None of the {count(noise.known)} labels whose truth is known is wrong."
    if not any(results.reasons.get(reason) for reason in FOUND):
        return (
            f"No label was judged inconsistent; all dropped samples together hold {count(noise.dropped_wrong_all)} "
            f"of the {count(noise.wrong)} wrong labels ({percent(noise.recall_all)})."
        )
    return (
        f"{count(noise.found_wrong)} of the {count(noise.wrong)} wrong labels were found inconsistent "
        f"(recall {percent(noise.recall)}); {percent(noise.precision)} of what was found inconsistent is wrong "
        f"(precision). {count(noise.dropped_wrong_all)} of the wrong ones were dropped."
    )


def confusion_context(results: Results) -> dict[str, Any]:
    """The confusion matrix as rows of counts and shares, or its largest errors where there are many classes."""
    classes = results.dataset["classes"]
    confusion_CC = np.array(results.confusion)
    share_CC = confusion_CC / np.maximum(1, confusion_CC.sum(axis=1, keepdims=True))
    if len(classes) <= MAX_CONFUSION:
        recall_C = per_class_accuracy(confusion_CC)
        rows = [
            (classes[i], [(int(n), float(s)) for n, s in zip(confusion_CC[i], share_CC[i], strict=True)], recall_C[i])
            for i in range(len(classes))
        ]
        return {"rows": rows, "pairs": []}
    errors_CC = confusion_CC * (1 - np.eye(len(classes), dtype=np.int64))
    order = np.argsort(-errors_CC, axis=None, kind="stable")[:TOP_CONFUSIONS]
    places = [divmod(int(i), len(classes)) for i in order]
    pairs = [
        (classes[i], classes[j], int(errors_CC[i, j]), float(share_CC[i, j])) for i, j in places if errors_CC[i, j]
    ]
    return {"rows": [], "pairs": pairs}


def source_tables(results: Results, runs: Sequence[ArmRun], mask: Mask) -> list[tuple[str, Mapping[str, Any], bool]]:
    """Titles and entries of what says where the numbers come from, and whether each is shown unfolded."""
    info = runs[0].info
    first = {
        "data set": results.dataset["name"],
        "data set digest": results.dataset["digest"],
        "mask digest": results.mask_digest,
        "method": info["method"],
        "keep": f"{info['keep']:g} asked for, {mask.meta['keep_achieved']:.4f} reached",
        "seeds": ", ".join(map(str, info["seeds"])) + f"; the mask is of seed {mask.meta['seed']}",
        "model": f"{info['architecture']['model']}, pictures of {info['architecture']['image_size']} pixels a side",
        "versions": ", ".join(f"{k} {v}" for k, v in info["versions"].items()),
    }
    tables = [("Identity", first, True), ("Method settings", info["prune_config"], False)]
    tables.append(("Training settings", info["train_config"], False))
    if info["semantics"]:
        tables.append(("CLIP", info["semantics"], False))
    return tables


def render_report(
    results: Results, runs: Sequence[ArmRun], train: ImageTable, mask: Mask, truth_N: npt.NDArray[np.int32]
) -> str:
    """Write the page; the same inputs give the same text.

    Args:
        results: The numbers.
        runs: What they come from, in the order of the arms.
        train: The training rows, in the order of the mask.
        mask: What was kept.
        truth_N: True labels of the training rows, int32 (N,); -1 where unknown.
    """
    gate = runs[0].info["prune_config"].get("gate") if results.reasons.keys() & set(FOUND) else None
    labels = arm_figures.arm_labels(results)
    pruned = results.arms[0]
    class_figures = [arm_figures.class_figure(results, runs)]
    if not mask.kept.all():
        class_figures.append(mask_figures.dropped_figure(mask, train.label, results.dataset["classes"]))
    return render(
        TEMPLATE,
        results=results,
        pruned=pruned,
        kept=int(mask.kept.sum()),
        total=len(mask),
        arms=[(*legend, arm) for legend, arm in zip(arm_figures.arm_legend(labels), results.arms, strict=True)],
        headline=headline(results),
        noise_sentence=noise_sentence(results),
        accuracy=arm_figures.accuracy_figure(results),
        training=arm_figures.training_figures(results, runs),
        selection=mask_figures.selection_figures(mask, truth_N, train.label, gate),
        galleries=galleries(train, mask, truth_N),
        doubtful=DOUBTFUL,
        classes=class_figures,
        confusion=confusion_context(results),
        reasons=[(r, results.reasons[r]) for r in mask_figures.REASONS if r in results.reasons],
        mask_seed=mask.meta["seed"],
        sources=source_tables(results, runs, mask),
        same_budget=all_same_budget(results),
    )


def render_summary(results: Results) -> str:
    """The result table and what became of the wrong labels, in Markdown."""
    lines = [
        f"### {cell(results.dataset['name'])}, data {results.dataset['digest'][:12]}, mask {results.mask_digest[:12]}",
        "",
        "| arm | kept | test accuracy | seed by seed | samples trained on | samples forward | seconds |",
        "|---|--:|--:|---|--:|--:|--:|",
    ]
    for label, arm in zip(arm_figures.arm_labels(results), results.arms, strict=True):
        name = f"**{cell(label)}**" if arm.role == "pruned" else cell(label)
        spread = "" if arm.accuracy_sd is None else f" ± {100 * arm.accuracy_sd:.1f}"
        each = ", ".join(f"{100 * a:.1f}" for a in arm.accuracy)
        lines.append(
            f"| {name} | {percent(arm.keep_achieved)} | {100 * arm.accuracy_mean:.1f}{spread} % | {each} | "
            f"{count(arm.backward_samples)} | {count(arm.forward_samples)} | {arm.seconds:.1f} |"
        )
    lines += ["", noise_sentence(results)]
    if results.alarms:
        lines += ["", *(f"- **Alarm:** {cell(alarm)}" for alarm in results.alarms)]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """A text from outside, made safe for a Markdown table."""
    return html.escape(text).replace("|", "&#124;").replace("\n", " ").replace("`", "&#96;")
