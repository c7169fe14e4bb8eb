"""The pages of an inspection: the report, and the pictures of an audit."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

import secateur
from secateur.evaluation.charts import (
    MAX_ROWS,
    ODDS_CAPTION,
    Figure,
    Group,
    group_legend,
    odds_histogram,
)
from secateur.evaluation.findings_file import facts
from secateur.evaluation.gallery import Picture, thumbnail
from secateur.evaluation.inspection import Inspection
from secateur.evaluation.page import count, percent, render

REPORT_TEMPLATE, AUDIT_TEMPLATE = "inspect.html.j2", "audit.html.j2"
SUSPECTS = 50  # pictures of suspected labels
GROUPS, COPIES = 16, 6  # groups of copies, and pictures of each
PAIRS = 12  # rows of the commonest changes
CLASS_PAIRS = 3  # the same within a class
CHANNELS = {
    "clip": "CLIP's texts of the classes",
    "neighbours": "labels of the nearest pictures",
    "probe": "a linear classifier trained on the other labels",
}


@dataclass(frozen=True)
class ClassRow:
    """A class by its given labels."""

    name: str
    samples: int
    suspected: int
    expected: float  # mean probability that its labels are wrong
    suggestions: Sequence[tuple[str, int]]  # commonest first


@dataclass(frozen=True)
class CopyGroup:
    """Pictures that are one."""

    kind: str
    count: int
    pictures: Sequence[Picture]


def headline(inspection: Inspection) -> str:
    """How many labels are wrong, in one sentence."""
    rate, size = inspection.findings.rate, len(inspection)
    start = "About" if inspection.findings.audited else "At least"
    return f"{start} {count(rate.value * size)} of {count(size)} labels are probably wrong"


def rate_sentence(inspection: Inspection) -> str:
    """The estimate with its interval, and what it rests on."""
    rate, audited = inspection.findings.rate, inspection.findings.audited
    about = f"{percent(rate.value)}, interval {percent(rate.low)} to {percent(rate.high)}"
    if audited:
        return f"{about}, calibrated by {count(audited)} samples that a person judged."
    return f"{about}. This is a lower bound: mistakes hide where the signals are unsure too."


def groups_by_suspicion(inspection: Inspection, above: float) -> list[Group]:
    """Suspected labels, and the others."""
    suspected_N = inspection.probability_wrong > above
    groups = [Group("suspected", "suspected", suspected_N), Group("not suspected", "plain", ~suspected_N)]
    return [g for g in groups if g.member_N.any()]


def figures(inspection: Inspection, above: float) -> list[Figure]:
    """How P(wrong) and the probability of the given label under each channel are spread."""
    groups = groups_by_suspicion(inspection, above)
    values = [(g.name, g.colour, inspection.probability_wrong[g.member_N]) for g in groups]
    title, words = "Probability that the label is wrong", "probability that the label is wrong"
    line = (above, f"suspected above {100 * above:g} %")
    made = [Figure(title, odds_histogram(title, values, words, line), ODDS_CAPTION, group_legend(groups))]
    for name, signal_N in inspection.findings.signal.items():
        title = f"Probability of the given label by {CHANNELS.get(name, name)}"
        values = [(g.name, g.colour, np.exp(signal_N[g.member_N])) for g in groups]
        chart = odds_histogram(title, values, "probability that the label is right")
        made.append(Figure(title, chart, legend=group_legend(groups)))
    return made


def commonest(
    given_S: npt.NDArray[np.int32], suggested_S: npt.NDArray[np.int32], classes: Sequence[str]
) -> list[tuple[str, str, int]]:
    """Given label, suggested label and number of suspects, the commonest first; only those where both differ."""
    pair_P2, number_P = np.unique(np.stack([given_S, suggested_S], axis=1), axis=0, return_counts=True)
    order = np.argsort(-number_P, kind="stable")
    found = [(int(pair_P2[i, 0]), int(pair_P2[i, 1]), int(number_P[i])) for i in order]
    return [(classes[given], classes[suggested], number) for given, suggested, number in found if given != suggested]


def class_rows(inspection: Inspection, above: float) -> list[ClassRow]:
    """The classes, those with the largest expected share of wrong labels first."""
    classes, size = inspection.table.info.classes, len(inspection.table.info.classes)
    suspects = inspection.suspects(above)
    pairs = commonest(inspection.label[suspects], inspection.findings.suggested_N[suspects], classes)
    total_C = np.bincount(inspection.label, minlength=size)
    suspected_C = np.bincount(inspection.label[suspects], minlength=size)
    wrong_C = np.bincount(inspection.label, inspection.probability_wrong, minlength=size) / np.maximum(1, total_C)
    return [
        ClassRow(
            classes[c],
            int(total_C[c]),
            int(suspected_C[c]),
            float(wrong_C[c]),
            [(suggested, number) for given, suggested, number in pairs if given == classes[c]][:CLASS_PAIRS],
        )
        for c in np.argsort(-wrong_C, kind="stable")[:MAX_ROWS].tolist()
    ]


def pictures(inspection: Inspection, positions: Iterable[int]) -> list[Picture]:
    """Tiles of samples."""
    table, classes = inspection.table, inspection.table.info.classes
    made = []
    for i in positions:
        row, given = int(inspection.row[i]), int(inspection.label[i])
        suggested = int(inspection.findings.suggested_N[i])
        uri, large = thumbnail(table.image(row))
        made.append(
            Picture(
                uri=uri,
                large=large,
                sample_id=str(table.sample_id[row]),
                source=table.source(row),
                given=classes[given],
                suggested=classes[suggested] if suggested != given else None,
                probability=1 - float(inspection.probability_wrong[i]),
                split=str(inspection.split[i]),
            )
        )
    return made


def copy_groups(inspection: Inspection, *, leaks: bool) -> list[CopyGroup]:
    """Groups of copies that reach from training to test, or the others; those with more than one label first."""
    chosen = [g for g in inspection.groups if any(inspection.leak[i] for i in g) == leaks]
    labels = [len({int(inspection.label[i]) for i in g}) for g in chosen]
    order = sorted(range(len(chosen)), key=lambda k: (-labels[k], -len(chosen[k])))
    made = []
    for k in order[:GROUPS]:
        kind = "identical files" if inspection.exact[list(chosen[k])].all() else "nearly the same"
        kind += f", {labels[k]} different labels" if labels[k] > 1 else ""
        # Of a large group, pictures of each split and each label are to be among those shown.
        shown = in_turn(inspection, chosen[k])[:COPIES]
        made.append(CopyGroup(kind, len(chosen[k]), pictures(inspection, shown)))
    return made


def in_turn(inspection: Inspection, members: Iterable[int]) -> list[int]:
    """Members of a group: the first of each split and label, then the second of each, and so on."""
    turns: list[tuple[int, int]] = []
    seen: Counter[tuple[str, int]] = Counter()
    for i in sorted(members):
        kind = (inspection.split[i], int(inspection.label[i]))
        turns.append((seen[kind], i))
        seen[kind] += 1
    return [i for _, i in sorted(turns)]


def source_tables(inspection: Inspection) -> list[tuple[str, dict[str, Any], bool]]:
    """Titles and entries of what says where the numbers come from, and whether each is shown unfolded."""
    known, info = facts(inspection), inspection.table.info
    data = {
        "data set": info.name,
        "digest": info.digest,
        "samples": ", ".join(f"{count(n)} {split}" for split, n in info.counts.items() if n),
        "set aside": f"{count(len(info.unreadable))} that do not decode",
        "secateur": secateur.__version__,
    }
    clip = {key: value for key, value in known["clip"].items() if value}
    return [("Data", data, True), ("CLIP", clip, True)]


def render_inspection(inspection: Inspection, above: float) -> str:
    """Write the report; the same inputs give the same text.

    Args:
        inspection: What was found.
        above: Probability of being wrong above which a label is suspected.
    """
    findings, suspects, classes = inspection.findings, inspection.suspects(above), inspection.table.info.classes
    return render(
        REPORT_TEMPLATE,
        info=inspection.table.info,
        inspection=inspection,
        findings=findings,
        headline=headline(inspection),
        rate_sentence=rate_sentence(inspection),
        suspected=len(suspects),
        above=above,
        in_groups=int((inspection.group >= 0).sum()),
        exact=int(inspection.exact.sum()),
        leaks=int(inspection.leak.sum()),
        figures=figures(inspection, above),
        channels=[(name, CHANNELS.get(name, name), weight) for name, weight in findings.weight.items()],
        classes=class_rows(inspection, above),
        all_classes=len(classes),
        pairs=commonest(inspection.label[suspects], findings.suggested_N[suspects], classes)[:PAIRS],
        pictures=pictures(inspection, suspects[:SUSPECTS].tolist()),
        copies=[
            ("Leaks: training pictures that the test split has too", copy_groups(inspection, leaks=True)),
            ("Copies", copy_groups(inspection, leaks=False)),
        ],
        sources=source_tables(inspection),
    )


def render_audit(inspection: Inspection, position_A: npt.NDArray[np.int64], file: str) -> str:
    """Write the page with the pictures of an audit, by given label.

    Args:
        inspection: What was found.
        position_A: The samples to judge, in the order of the file.
        file: Name of the file to fill in.
    """
    lines = list(enumerate(pictures(inspection, position_A.tolist()), start=2))  # the first line is the header
    groups = [(given, list(group)) for given, group in groupby(lines, key=lambda entry: entry[1].given)]
    return render(AUDIT_TEMPLATE, info=inspection.table.info, groups=groups, total=len(lines), file=file)
