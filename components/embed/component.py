"""The step that asks CLIP about the pictures."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output

from secateur.components.images import IMAGE
from secateur.components.settings import documented
from secateur.semantics.config import ClipConfig


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented(ClipConfig)
def embed(
    dataset: Input[Dataset],
    shard: str,
    embeddings: Output[Dataset],
    metrics: Output[Metrics],
    clip: str = "auto",
    pretrained: str = "auto",
    checkpoint: str = "",
    clip_config: str = "",
    prompts: str = "",
    embed_batch: int = 0,
    embed_workers: int = 0,
    embed_precision: str = "auto",
) -> None:
    """Embed the pictures of one shard, and the prompts of all classes, with CLIP.

    Args:
        dataset: the table that `ingest` wrote
        shard: file name of the shard

    Returns:
        embeddings: image and text embeddings, and what made them, in a folder
        metrics: how many pictures, and how many of them were embedded before
    """
    from secateur import logs
    from secateur.files import write_json
    from secateur.records.tracking.live import follow
    from secateur.semantics.config import ClipConfig
    from secateur.semantics.embed import embed_shard

    logs.configure("embed", shard)
    live = follow("embed", shard)
    config = ClipConfig(
        clip=clip,
        pretrained=pretrained,
        checkpoint=checkpoint,
        clip_config=clip_config,
        prompts=prompts,
        embed_batch=embed_batch,
        embed_workers=embed_workers,
        embed_precision=embed_precision,
    )
    figures = embed_shard(dataset.path, shard, config, embeddings.path)
    live.figures(figures, shard)
    embeddings.metadata.update(figures)
    metrics.metadata.update(figures)
    write_json(metrics.path, figures)
