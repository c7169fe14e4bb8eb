"""The step that makes a version of the mask, and puts everything about the run into MLflow."""

from typing import List, NamedTuple

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
    baselines: Input[List[Model]],
    embedded: Input[List[Metrics]],
    model_name: str = "",
    store_data: bool = True,
    promote_accuracy: float = 0.0,
    promote_loss: float = 0.01,
    promote_class_loss: float = 0.1,
    promote_cost: float = 0.0,
    promote_recall: float = 0.0,
    promote_untested: bool = False,
) -> NamedTuple("Published", [("version", str), ("run_id", str), ("mask_digest", str), ("promotion", str)]):  # type: ignore[valid-type]
    """Publish the mask in the DVC registry, and the models with all their figures in MLflow.

    Where to is up to the environment: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, SECATEUR_REGISTRY.

    Args:
        dataset: the table that `ingest` wrote
        model: the models that `prune` trained
        mask: the mask that `prune` made
        results: every figure (JSON)
        report: plots and galleries, on one page
        summary: the table of results
        baselines: models of other methods at the same budget, whose curves are logged too
        embedded: what `embed` counted, for each shard

    Returns:
        version: tag of the mask in the registry
        run_id: the MLflow run
        mask_digest: SHA-256 over the columns of the mask
        promotion: whether the model became the champion, and why
    """
    from secateur import logs
    from secateur.records.publishing import PublishConfig
    from secateur.records.publishing import publish as run

    logs.configure("publish")
    config = PublishConfig(
        model_name=model_name,
        store_data=store_data,
        promote_accuracy=promote_accuracy,
        promote_loss=promote_loss,
        promote_class_loss=promote_class_loss,
        promote_cost=promote_cost,
        promote_recall=promote_recall,
        promote_untested=promote_untested,
    )
    done = run(
        config,
        dataset.path,
        model.path,
        mask.path,
        results.path,
        report.path,
        summary.path,
        [b.path for b in baselines],
        [e.metadata for e in embedded],
    )
    return (done.version, done.run_id, done.mask_digest, done.promotion)
