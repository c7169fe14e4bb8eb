"""The step that judges many arms side by side."""

from typing import List

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Markdown, Metrics, Model, Output

from secateur.components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def compare(
    dataset: Input[Dataset],
    clean_labels: Input[Dataset],
    models: Input[List[Model]],
    masks: Input[List[Dataset]],
    results: Output[Metrics],
    report: Output[HTML],
    summary: Output[Markdown],
) -> None:
    """Score many arms on the test split, and their masks against the clean labels.

    Args:
        dataset: the table that `ingest` wrote
        clean_labels: the labels that `ingest` knows to be true
        models: the models that `prune` trained, one folder for each arm
        masks: the masks that `prune` made, in the same order

    Returns:
        results: every figure (JSON)
        report: accuracy against cost, on one page
        summary: the table of results
    """
    from secateur import logs
    from secateur.evaluation.comparison import compare as run

    logs.configure("compare")
    results.uri, report.uri, summary.uri = f"{results.uri}.json", f"{report.uri}.html", f"{summary.uri}.md"
    found = run(
        dataset.path,
        clean_labels.path,
        [m.path for m in models],
        [m.path for m in masks],
        results.path,
        report.path,
        summary.path,
    )
    results.metadata.update({entry.label: entry.arm.accuracy_mean for entry in found.arms})
