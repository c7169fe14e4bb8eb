"""The step that makes a version of the mask, and puts everything about the run into MLflow."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Markdown, Metrics, Model

from secateur.components.images import IMAGE
from secateur.components.settings import documented
from secateur.records.publishing import PublishConfig


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented(PublishConfig)
def publish(
    dataset: Input[Dataset],
    model: Input[Model],
    mask: Input[Dataset],
    results: Input[Metrics],
    report: Input[HTML],
    summary: Input[Markdown],
    model_name: str = "",
) -> NamedTuple("Published", [("version", str), ("run_id", str), ("mask_digest", str)]):  # type: ignore[valid-type]
    """Publish the mask in the DVC registry, and the models with all their figures in MLflow.

    Where to is up to the environment: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, SECATEUR_REGISTRY.

    Args:
        dataset: the table that `ingest` wrote
        model: the models that `prune` trained
        mask: the mask that `prune` made
        results: every figure (JSON)
        report: plots and galleries, on one page
        summary: the table of results

    Returns:
        version: tag of the mask in the registry
        run_id: the MLflow run
        mask_digest: SHA-256 over the columns of the mask
    """
    from secateur import logs
    from secateur.records.publishing import PublishConfig
    from secateur.records.publishing import publish as run

    logs.configure("publish")
    config = PublishConfig(model_name=model_name)
    done = run(config, dataset.path, model.path, mask.path, results.path, report.path, summary.path)
    return (done.version, done.run_id, done.mask_digest)
