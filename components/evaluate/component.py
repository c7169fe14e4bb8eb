"""The step that judges the pruned model and its mask."""

from typing import List

from kfp import dsl
from kfp.dsl import HTML, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output

from secateur.components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    dataset: Input[Dataset],
    clean_labels: Input[Dataset],
    model: Input[Model],
    mask: Input[Dataset],
    baselines: Input[List[Model]],
    results: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    report: Output[HTML],
    summary: Output[Markdown],
) -> None:
    """Score the pruned models beside the baselines on the test split, and the mask against the clean labels.

    Args:
        dataset: the table that `ingest` wrote
        clean_labels: the labels that `ingest` knows to be true
        model: the models that `prune` trained
        mask: the mask that `prune` made
        baselines: models of other methods at the same budget

    Returns:
        results: every figure (JSON)
        confusion: test samples by label and prediction of the pruned arm's first seed
        report: plots and galleries, on one page
        summary: the table of results
    """
    from secateur import logs
    from secateur.evaluation.runs import evaluate as run
    from secateur.files import write_json

    logs.configure("evaluate")
    results.uri, report.uri, summary.uri = f"{results.uri}.json", f"{report.uri}.html", f"{summary.uri}.md"
    found = run(
        dataset.path,
        clean_labels.path,
        model.path,
        mask.path,
        [b.path for b in baselines],
        results.path,
        report.path,
        summary.path,
    )
    results.metadata.update(accuracy=found.arms[0].accuracy_mean, mask=found.mask_digest)
    matrix = [list(row) for row in found.confusion]
    confusion.log_confusion_matrix(list(found.dataset["classes"]), matrix)
    write_json(confusion.path, matrix)
