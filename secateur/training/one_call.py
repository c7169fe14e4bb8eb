"""The whole of it in one call, without a pipeline."""

from dataclasses import dataclass, field
from pathlib import Path

from secateur.dataset.sources import IngestConfig, ingest
from secateur.dataset.table import open_table
from secateur.pruning.config import PruneConfig
from secateur.pruning.mask import Mask, read_mask
from secateur.pruning.methods import find_method
from secateur.semantics.config import ClipConfig
from secateur.training.config import TrainConfig
from secateur.training.models import Classifier
from secateur.training.runs import prune, warm_up
from secateur.training.saved import load_network


@dataclass(frozen=True)
class PrunedRun:
    """What `prune_while_training` gives."""

    mask: Mask  # which samples were kept, and why
    figures: dict[str, float]  # final figures, mean over the seeds
    folder: Path  # data/, embeddings/, warmup/, model/, mask/
    seeds: tuple[int, ...] = field(default=(0,))

    def network(self, seed: int | None = None) -> Classifier:
        """A trained classifier, the first seed's by default: float32 (B, 3, H, W) in [0, 1] to logits (B, C)."""
        return load_network(self.folder / "model", self.seeds[0] if seed is None else seed)


def prune_while_training(
    source: str,
    folder: str | Path,
    *,
    method: str = PruneConfig.method,
    keep: float = PruneConfig.keep,
    epochs: int = PruneConfig.epochs,
    train: TrainConfig | None = None,
    clip: ClipConfig | None = None,
) -> PrunedRun:
    """Train a classifier on a labelled image data set while the data set is pruned.

    Args:
        source: "digits", a folder, a file or a name, as `secateur run --source` takes it, other than from DVC.
        folder: Where everything is written.
        method: A name out of `secateur methods`.
        keep: Fraction of the training samples to keep, in (0, 1].
        epochs: Epochs of an ordinary run, warm-up included; pruning shortens those after the warm-up to `keep`.
        train: Model, optimisation and seeds.
        clip: Which CLIP is asked, for the methods that need one.

    Raises:
        InputError: Something given cannot be used; the message says what.
    """
    needs = find_method(method).needs
    out, train = Path(folder), train or TrainConfig()
    config = PruneConfig(method=method, keep=keep, epochs=epochs)
    train.check_epochs(epochs)
    ingest(IngestConfig(source=source), out / "data", out / "clean_labels.parquet")
    embeddings = []
    if "semantics" in needs:
        from secateur.semantics.embed import embed_shard

        for shard in open_table(out / "data").info.shards:
            embeddings.append(out / "embeddings" / Path(shard).stem)
            embed_shard(out / "data", shard, clip or ClipConfig(), embeddings[-1])
    warm_up(out / "data", train, out / "warmup")
    figures = prune(out / "data", embeddings, out / "warmup", config, out / "model", out / "mask")
    return PrunedRun(read_mask(out / "mask"), figures, out, train.seeds)
