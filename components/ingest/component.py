"""The step that reads a data set into a table."""

from typing import List

from kfp import dsl
from kfp.dsl import Dataset, Output

from secateur.components.images import IMAGE
from secateur.components.settings import documented
from secateur.dataset.sources import IngestConfig


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented(IngestConfig)
def ingest(
    dataset: Output[Dataset],
    clean_labels: Output[Dataset],
    source: str = "digits",
    validation: float = 0.08,
    test: float = 0.2,
    max_unreadable: float = 0.01,
    shards: int = 1,
    split_seed: int = 0,
    snapshot: str = "",
) -> List[str]:
    """Read a labelled image data set into a table of Arrow shards.

    Args:
        snapshot: any text that names the state of the source; with another one, the source is read anew, not reused

    Returns:
        dataset: the table: shards and dataset.json, in a folder
        clean_labels: labels known to be true, for the evaluation alone (Parquet)
        Output: file names of the shards
    """
    from secateur import logs
    from secateur.dataset.sources import IngestConfig
    from secateur.records.dvc_source import ingest as run
    from secateur.records.tracking.live import follow

    logs.configure("ingest")
    live = follow("ingest")
    config = IngestConfig(
        source=source,
        validation=validation,
        test=test,
        max_unreadable=max_unreadable,
        shards=shards,
        split_seed=split_seed,
    )
    info = run(config, dataset.path, clean_labels.path)
    dataset.metadata.update(name=info.name, digest=info.digest, snapshot=snapshot, **info.counts)
    live.figures(info.counts)
    return list(info.shards)
