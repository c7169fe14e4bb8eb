"""The step that prunes while it trains; with the methods `full` and `random` it makes the baselines."""

from typing import List

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from secateur.components.images import IMAGE
from secateur.components.settings import documented
from secateur.pruning.config import PruneConfig


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented(PruneConfig)
def prune(
    dataset: Input[Dataset],
    warm_model: Input[Model],
    model: Output[Model],
    mask: Output[Dataset],
    metrics: Output[Metrics],
    embeddings: Input[List[Dataset]] = None,
    method: str = "multimodal",
    keep: float = 0.7,
    epochs: int = 30,
    class_floor: float = 0.2,
    rate: float = 0.5,
    scale_start: float = 4.0,
    scale_end: float = 400.0,
    gate: float = 0.5,
    relabel: bool = False,
    semantics: str = "clip",
    difficulty_weight: float = 1.0,
    semantic_weight: float = 1.0,
    curve: float = 0.0,
    annealing: float = 0.125,
    classification_weight: float = 3.0,
    selection_weight: float = 1.0,
    ramp: float = 0.5,
    tolerance: float = 0.05,
    retrain: bool = False,
) -> None:
    """Train the warmed-up models on, while a method chooses their samples.

    Args:
        dataset: the table that `ingest` wrote
        warm_model: what `warmup` wrote
        embeddings: what `embed` wrote for each shard; none for methods that do without CLIP

    Returns:
        model: one trained model per seed, with its history, in a folder
        mask: which samples are kept, and why; and the samples of every epoch, in a folder
        metrics: final losses and accuracies, mean over the seeds, and the fraction kept
    """
    from secateur import logs
    from secateur.components.trainjob import on_nodes
    from secateur.files import write_json
    from secateur.pruning.config import PruneConfig
    from secateur.pruning.mask import read_mask
    from secateur.records.tracking.live import follow
    from secateur.training.runs import prune as run

    logs.configure("prune", f"{method} {keep:g}")
    config = PruneConfig(
        method=method,
        keep=keep,
        epochs=epochs,
        class_floor=class_floor,
        rate=rate,
        scale_start=scale_start,
        scale_end=scale_end,
        gate=gate,
        relabel=relabel,
        semantics=semantics,
        difficulty_weight=difficulty_weight,
        semantic_weight=semantic_weight,
        curve=curve,
        annealing=annealing,
        classification_weight=classification_weight,
        selection_weight=selection_weight,
        ramp=ramp,
        tolerance=tolerance,
        retrain=retrain,
    )
    follow("prune", f"{method} {keep:g}", arm=config)
    shards = [e.path for e in embeddings or []]
    figures = on_nodes(run, dataset.path, shards, warm_model.path, config, model.path, mask.path)
    model.metadata.update(framework="pytorch", method=method, keep=keep)
    mask.metadata.update(digest=read_mask(mask.path).digest, dataset=dataset.metadata["digest"], method=method)
    metrics.metadata.update(figures)
    write_json(metrics.path, figures)
