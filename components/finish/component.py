"""The step that ends a run on a cluster, whatever became of the others."""

from kfp import dsl
from kfp.dsl import Markdown, Output, PipelineTaskFinalStatus

from secateur.components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def finish(status: PipelineTaskFinalStatus, summary: Output[Markdown]) -> str:
    """Tell MLflow, and who listens at SECATEUR_ALERT_URL, when the steps of a run have failed.

    Args:
        status: what became of the steps; KFP gives it to the task of an exit handler

    Returns:
        summary: what failed, why, and the figures up to then
        Output: "succeeded" or "failed"
    """
    from secateur import logs
    from secateur.records.tracking.finishing import finish as run

    logs.configure("finish")
    summary.uri = f"{summary.uri}.md"
    return run(status.state, status.error_message or "", summary.path)
