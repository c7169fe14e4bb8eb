"""The pipeline: ingest, embed, warm up, prune while training, evaluate, publish."""

from typing import List, NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Dataset, Metrics, Model

from secateur.components.embed.component import embed
from secateur.components.evaluate.component import evaluate
from secateur.components.ingest.component import ingest
from secateur.components.prune.component import prune
from secateur.components.publish.component import publish
from secateur.components.settings import documented
from secateur.components.warmup.component import warmup
from secateur.dataset.sources import IngestConfig
from secateur.pruning.config import PruneConfig
from secateur.records.publishing import PublishConfig
from secateur.semantics.config import ClipConfig
from secateur.training.config import TrainConfig


class Outputs(NamedTuple):
    """What a run ends with."""

    mask: Dataset
    model: Model
    results: Metrics
    report: HTML
    version: str
    run_id: str
    mask_digest: str
    promotion: str


@dsl.pipeline(name="secateur-prune")
@documented(IngestConfig, ClipConfig, TrainConfig, PruneConfig, PublishConfig)
def prune_pipeline(
    source: str = IngestConfig.source,
    validation: float = IngestConfig.validation,
    test: float = IngestConfig.test,
    max_unreadable: float = IngestConfig.max_unreadable,
    shards: int = IngestConfig.shards,
    split_seed: int = IngestConfig.split_seed,
    snapshot: str = "",
    clip: str = ClipConfig.clip,
    pretrained: str = ClipConfig.pretrained,
    checkpoint: str = ClipConfig.checkpoint,
    clip_config: str = ClipConfig.clip_config,
    prompts: str = ClipConfig.prompts,
    embed_batch: int = ClipConfig.embed_batch,
    embed_workers: int = ClipConfig.embed_workers,
    embed_precision: str = ClipConfig.embed_precision,
    model: str = TrainConfig.model,
    image_size: int = TrainConfig.image_size,
    augment: str = TrainConfig.augment,
    warmup_epochs: int = TrainConfig.warmup_epochs,
    batch_size: int = TrainConfig.batch_size,
    learning_rate: float = TrainConfig.learning_rate,
    momentum: float = TrainConfig.momentum,
    weight_decay: float = TrainConfig.weight_decay,
    precision: str = TrainConfig.precision,
    deterministic: bool = TrainConfig.deterministic,
    seeds: List[int] = list(TrainConfig.seeds),  # noqa: B006  KFP takes no tuple
    method: str = PruneConfig.method,
    keep: float = PruneConfig.keep,
    epochs: int = PruneConfig.epochs,
    class_floor: float = PruneConfig.class_floor,
    rate: float = PruneConfig.rate,
    scale_start: float = PruneConfig.scale_start,
    scale_end: float = PruneConfig.scale_end,
    gate: float = PruneConfig.gate,
    relabel: bool = PruneConfig.relabel,
    semantics: str = PruneConfig.semantics,
    difficulty_weight: float = PruneConfig.difficulty_weight,
    semantic_weight: float = PruneConfig.semantic_weight,
    curve: float = PruneConfig.curve,
    annealing: float = PruneConfig.annealing,
    classification_weight: float = PruneConfig.classification_weight,
    selection_weight: float = PruneConfig.selection_weight,
    ramp: float = PruneConfig.ramp,
    tolerance: float = PruneConfig.tolerance,
    retrain: bool = PruneConfig.retrain,
    baselines: List[str] = ["full", "random"],  # noqa: B006
    model_name: str = PublishConfig.model_name,
    store_data: bool = PublishConfig.store_data,
    promote_accuracy: float = PublishConfig.promote_accuracy,
    promote_loss: float = PublishConfig.promote_loss,
    promote_class_loss: float = PublishConfig.promote_class_loss,
    promote_cost: float = PublishConfig.promote_cost,
    promote_recall: float = PublishConfig.promote_recall,
    promote_untested: bool = PublishConfig.promote_untested,
) -> Outputs:
    """Prune a labelled image data set while a model trains on it.

    Args:
        snapshot: any text that names the state of the source; with another one, the source is read anew, not reused
        baselines: methods to compare with, at the same budget and else as they come; none that needs CLIP
    """
    table = ingest(
        source=source,
        validation=validation,
        test=test,
        max_unreadable=max_unreadable,
        shards=shards,
        split_seed=split_seed,
        snapshot=snapshot,
    )
    dataset = table.outputs["dataset"]
    with dsl.ParallelFor(table.outputs["Output"], name="each shard") as shard:
        asked = embed(
            dataset=dataset,
            shard=shard,
            clip=clip,
            pretrained=pretrained,
            checkpoint=checkpoint,
            clip_config=clip_config,
            prompts=prompts,
            embed_batch=embed_batch,
            embed_workers=embed_workers,
            embed_precision=embed_precision,
        )
    warm = warmup(
        dataset=dataset,
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
        seeds=seeds,
    )
    pruned = prune(
        dataset=dataset,
        embeddings=dsl.Collected(asked.outputs["embeddings"]),
        warm_model=warm.outputs["warm_model"],
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
    with dsl.ParallelFor(baselines, name="each baseline", parallelism=2) as baseline:
        compared = prune(
            dataset=dataset, warm_model=warm.outputs["warm_model"], method=baseline, keep=keep, epochs=epochs
        )
    judged = evaluate(
        dataset=dataset,
        clean_labels=table.outputs["clean_labels"],
        model=pruned.outputs["model"],
        mask=pruned.outputs["mask"],
        baselines=dsl.Collected(compared.outputs["model"]),
    )
    published = (
        publish(
            dataset=dataset,
            model=pruned.outputs["model"],
            mask=pruned.outputs["mask"],
            results=judged.outputs["results"],
            report=judged.outputs["report"],
            summary=judged.outputs["summary"],
            baselines=dsl.Collected(compared.outputs["model"]),
            embedded=dsl.Collected(asked.outputs["metrics"]),
            model_name=model_name,
            store_data=store_data,
            promote_accuracy=promote_accuracy,
            promote_loss=promote_loss,
            promote_class_loss=promote_class_loss,
            promote_cost=promote_cost,
            promote_recall=promote_recall,
            promote_untested=promote_untested,
        ).set_caching_options(enable_caching=False)  # its effects lie outside of the pipeline
    )
    return Outputs(
        mask=pruned.outputs["mask"],
        model=pruned.outputs["model"],
        results=judged.outputs["results"],
        report=judged.outputs["report"],
        version=published.outputs["version"],
        run_id=published.outputs["run_id"],
        mask_digest=published.outputs["mask_digest"],
        promotion=published.outputs["promotion"],
    )
