"""Which CLIP is asked, and how."""

from dataclasses import dataclass, replace
from pathlib import Path

from secateur.dataset import digits
from secateur.errors import InputError, require_choice, require_range

AUTO = "auto"
EMBEDDED = "digits-clip"
DEFAULT_CLIP = "ViT-B-32"
DEFAULT_PRETRAINED = "laion2b_s34b_b79k"
PRECISIONS = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class ClipConfig:
    """An open_clip model, by name and pretrained tag or from a file."""

    clip: str = AUTO  # an open_clip model name; "digits-clip", trained here; "auto": that for the digits, else ViT-B-32
    pretrained: str = AUTO  # an open_clip pretrained tag; "auto": laion2b_s34b_b79k for ViT-B-32, else it must be named
    checkpoint: str = ""  # a local weights file (safetensors or a plain state dict), instead of the pretrained tag
    clip_config: str = ""  # a local open_clip model config (JSON) for a model that open_clip does not know by name
    prompts: str = ""  # a file of templates, each a line with {} for the class, or JSON (see the README of embed)
    embed_batch: int = 0  # pictures per step of the encoder; 0: as the hardware has it
    embed_workers: int = 0  # threads that decode pictures while the encoder works; 0: as many as there are cores
    embed_precision: str = AUTO  # "fp32", "fp16" or "bf16"; "auto": fp16 on a GPU, fp32 on a CPU

    def __post_init__(self) -> None:
        require_range("embed_batch", self.embed_batch, 0)
        require_range("embed_workers", self.embed_workers, 0)
        require_choice("embed_precision", self.embed_precision, (AUTO, *PRECISIONS))
        if self.clip_config and not self.checkpoint:
            raise InputError("clip_config must come with checkpoint, got a config file alone")
        if self.checkpoint and self.pretrained not in (AUTO, ""):
            raise InputError(f"pretrained must be left out where a checkpoint is given, got {self.pretrained!r}")


@dataclass(frozen=True)
class ContrastiveConfig:
    """How a small CLIP is trained."""

    steps: int = 400  # optimiser steps
    groups: int = 5  # groups per step, each with one picture of every caption
    learning_rate: float = 6e-3  # peak of a one-cycle schedule
    weight_decay: float = 0.05  # of matrices and kernels
    rotation: float = 10.0  # degrees at most
    scale: float = 0.1  # change of either side, fraction at most
    shift: float = 0.125  # fraction of a side at most; a pixel in eight
    noise: float = 0.05  # standard deviation, in units of the normalised picture
    seed: int = 0  # of weights, batches and augmentation


def resolve(config: ClipConfig, dataset: str) -> ClipConfig:
    """Put names in the place of "auto"; no weights are named where there is no default.

    Args:
        config: What the user wants.
        dataset: Name of the data set.

    Raises:
        InputError: A checkpoint without the model that it is of, or a tag for the embedded CLIP.

    >>> resolve(ClipConfig(), "digits").clip
    'digits-clip'
    >>> resolve(ClipConfig(), "flowers").pretrained
    'laion2b_s34b_b79k'
    """
    clip = config.clip
    if clip == AUTO and config.checkpoint:
        if not config.clip_config:
            raise InputError("clip must name the open_clip model that the checkpoint is of, got 'auto'")
        clip = Path(config.clip_config).stem
    elif clip == AUTO:
        clip = EMBEDDED if dataset == digits.NAME and config.pretrained == AUTO else DEFAULT_CLIP
    pretrained = config.pretrained
    if clip == EMBEDDED and pretrained not in (AUTO, ""):
        raise InputError(f"pretrained must be left out for {EMBEDDED}, which is trained here, got {pretrained!r}")
    if config.checkpoint or clip == EMBEDDED:
        pretrained = ""
    elif pretrained == AUTO:
        pretrained = DEFAULT_PRETRAINED if clip == DEFAULT_CLIP else ""
    return replace(config, clip=clip, pretrained=pretrained)
