"""The step that trains on everything, before anything is pruned."""

from typing import List

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from secateur.components.images import IMAGE
from secateur.components.settings import documented
from secateur.training.config import TrainConfig


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented(TrainConfig)
def warmup(
    dataset: Input[Dataset],
    warm_model: Output[Model],
    metrics: Output[Metrics],
    model: str = "convnet",
    image_size: int = 0,
    augment: str = "shift",
    warmup_epochs: int = 6,
    batch_size: int = 32,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    precision: str = "auto",
    deterministic: bool = False,
    seeds: List[int] = [0, 1, 2],  # noqa: B006  KFP takes no tuple
) -> None:
    """Train one model per seed on all samples for a few epochs; every method and ratio goes on from these.

    Args:
        dataset: the table that `ingest` wrote

    Returns:
        warm_model: models, optimiser states and per-sample losses, in a folder
        metrics: final losses and accuracies, mean over the seeds
    """
    from secateur import logs
    from secateur.components.trainjob import on_nodes
    from secateur.files import write_json
    from secateur.records.tracking.live import follow
    from secateur.training.config import TrainConfig
    from secateur.training.runs import warm_up

    logs.configure("warmup")
    follow("warmup")
    config = TrainConfig(
        model=model,
        image_size=image_size,
        augment=augment,
        warmup_epochs=warmup_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        precision=precision,
        deterministic=deterministic,
        seeds=tuple(map(int, seeds)),
    )
    figures = on_nodes(warm_up, dataset.path, config, warm_model.path)
    warm_model.metadata.update(framework="pytorch", architecture=model)
    metrics.metadata.update(figures)
    write_json(metrics.path, figures)
