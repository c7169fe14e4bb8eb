"""The step that asks CLIP about the pictures."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from secateur.components.images import IMAGE
from secateur.components.settings import documented
from secateur.semantics.config import ClipConfig


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented(ClipConfig)
def embed(
    dataset: Input[Dataset],
    shard: str,
    embeddings: Output[Dataset],
    clip: str = "auto",
    pretrained: str = "auto",
    checkpoint: str = "",
    clip_config: str = "",
    embed_batch: int = 256,
) -> None:
    """Embed the pictures of one shard, and the prompts of all classes, with CLIP.

    Args:
        dataset: the table that `ingest` wrote
        shard: file name of the shard

    Returns:
        embeddings: image and text embeddings, and what made them, in a folder
    """
    from secateur import logs
    from secateur.semantics.config import ClipConfig
    from secateur.semantics.embed import embed_shard

    logs.configure("embed", shard)
    config = ClipConfig(
        clip=clip, pretrained=pretrained, checkpoint=checkpoint, clip_config=clip_config, embed_batch=embed_batch
    )
    embeddings.metadata.update(embed_shard(dataset.path, shard, config, embeddings.path))
