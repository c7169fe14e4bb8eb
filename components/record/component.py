"""The step that puts everything about a sweep into MLflow."""

from typing import List

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Markdown, Metrics, Model

from secateur.components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def record(
    dataset: Input[Dataset],
    models: Input[List[Model]],
    results: Input[Metrics],
    report: Input[HTML],
    summary: Input[Markdown],
    embedded: Input[List[Metrics]],
) -> str:
    """Log a sweep in MLflow: a run with the comparison, and one below it for each arm.

    Where to is up to the environment: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME.

    Args:
        dataset: the table that `ingest` wrote
        models: the models that `prune` trained, one folder for each arm
        results: every figure (JSON)
        report: accuracy against cost, on one page
        summary: the table of results
        embedded: what `embed` counted, for each shard

    Returns:
        Output: the MLflow run
    """
    from secateur import logs
    from secateur.records.sweeping import record_sweep

    logs.configure("record")
    figures = [e.metadata for e in embedded]
    return record_sweep(dataset.path, [m.path for m in models], results.path, report.path, summary.path, figures)
