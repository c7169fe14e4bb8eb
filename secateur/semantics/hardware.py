"""What the machine has, and what follows for embedding."""

from secateur.cores import cores
from secateur.semantics.config import AUTO, ClipConfig

# As many as fill the device. A CPU gains nothing beyond its caches; on a GPU, ViT-H fits beside it in 16 GB.
BATCH = {"cpu": 64, "cuda": 256}
MAX_WORKERS = 32


def device_type() -> str:
    """Where CLIP runs: "cuda" where there is a GPU, else "cpu"."""
    import torch  # takes seconds to import

    return "cuda" if torch.cuda.is_available() else "cpu"


def precision_of(config: ClipConfig) -> str:
    """The precision that is wanted, as open_clip names it."""
    if config.embed_precision != AUTO:
        return config.embed_precision
    return "fp16" if device_type() == "cuda" else "fp32"


def batch_of(config: ClipConfig) -> int:
    """Pictures per step of the encoder."""
    return config.embed_batch or BATCH[device_type()]


def workers_of(config: ClipConfig) -> int:
    """Threads that decode."""
    return config.embed_workers or min(cores(), MAX_WORKERS)
