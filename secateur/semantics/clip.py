"""A CLIP out of open_clip, with its weights, on the device that the machine has."""

import json
import logging
import pickle
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor

from secateur.errors import InputError
from secateur.files import file_digest
from secateur.semantics.config import ClipConfig, resolve
from secateur.semantics.hardware import device_type, precision_of
from secateur.semantics.hub import require_model
from secateur.semantics.preprocess import Preprocess
from secateur.semantics.weights import find_weights

__all__ = ["Clip", "load_clip", "resolve"]

log = logging.getLogger(__name__)

REASON_LENGTH = 300
TEXTS_PER_STEP = 256
MODEL_KEYS = ("embed_dim", "vision_cfg", "text_cfg")


@dataclass(frozen=True)
class Clip:
    """A model that puts pictures and texts in one space."""

    model: Any  # open_clip.CLIP or one of its kin
    preprocess: Preprocess
    tokenizer: Callable[[Sequence[str]], Tensor]
    weights: Path
    device: torch.device
    precision: str  # as open_clip names it

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights file."""
        return file_digest(self.weights)

    def encode_pixels(self, pixel_BHW3: Tensor) -> Tensor:
        """Embed pictures of the model's size, uint8 (B, H, W, 3), as unit vectors, float32 (B, D) on the device."""
        return self.encode_images(self.preprocess.normalise(pixel_BHW3.to(self.device, non_blocking=True)))

    @torch.inference_mode()
    def encode_images(self, picture_B3HW: Tensor) -> Tensor:
        """Embed preprocessed pictures, float32 (B, 3, H, W), as unit vectors, float32 (B, D) on the device."""
        dtype = open_clip.get_input_dtype(self.precision)
        return unit(self.model.encode_image(picture_B3HW.to(self.device, dtype)))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed T texts as unit vectors, float32 (T, D) on the CPU."""
        token_TL = self.tokenizer(list(texts)).to(self.device)
        steps = range(0, len(token_TL), TEXTS_PER_STEP)
        return torch.cat([unit(self.model.encode_text(token_TL[i : i + TEXTS_PER_STEP])) for i in steps]).cpu()


def unit(vector_BD: Tensor) -> Tensor:
    """Scale vectors to length 1, in float32."""
    return torch.nn.functional.normalize(vector_BD.float(), dim=-1)


def load_clip(config: ClipConfig) -> Clip:
    """Load a model and its weights, on a GPU where there is one.

    Args:
        config: Resolved; see `resolve`.

    Raises:
        InputError: A model that open_clip does not know or cannot build here, or weights that are not for it.
    """
    weights = find_weights(config)
    name, settings = register(config)
    require_model(name)
    precision, device = precision_of(config), torch.device(device_type())
    try:
        with torch.random.fork_rng(devices=[]):  # the model is made with random weights first
            model = open_clip.create_model(
                name,
                str(weights),
                precision=precision,
                device=device,
                force_quick_gelu=settings.get("quick_gelu", False),
                force_preprocess_cfg=settings,
            )
    except pickle.UnpicklingError as error:
        raise InputError(
            f"checkpoint must be safetensors or a plain state dict, which is read without unpickling, "
            f"got {str(weights)!r}, which holds something else or is damaged"
        ) from error
    except Exception as error:  # anything may come of a file that is not what it should be
        reason = " ".join(f"{type(error).__name__} {error}".split())[:REASON_LENGTH]
        raise InputError(f"checkpoint must hold weights of {config.clip}, got {str(weights)!r}: {reason}") from error
    model.eval().requires_grad_(False)
    return Clip(
        model=model,
        preprocess=Preprocess(model.visual.preprocess_cfg),
        tokenizer=open_clip.get_tokenizer(name),
        weights=weights,
        device=device,
        precision=precision,
    )


def register(config: ClipConfig) -> tuple[str, dict[str, Any]]:
    """The name under which open_clip knows the model, and what its weights ask for beside it."""
    if not config.clip_config:
        return config.clip, open_clip.get_pretrained_cfg(config.clip, config.pretrained)
    model, preprocessing = read_model_config(Path(config.clip_config))
    # open_clip takes configs as files, each named after its model; a name of its own hides no model that is known.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{Path(config.clip_config).stem}@{file_digest(config.clip_config)[:12]}.json"
        file.write_text(json.dumps(model))
        open_clip.add_model_config(file)
    return file.stem, preprocessing


def read_model_config(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a model config and its preprocessing, in open_clip's own form or that of the hub's `open_clip_config.json`.

    Raises:
        InputError: It is neither.
    """
    if not file.is_file():
        raise InputError(f"clip_config must be a file, got {str(file)!r}, which is not there")
    try:
        config = json.loads(file.read_text())
        model = config.get("model_cfg", config)
        missing = [key for key in MODEL_KEYS if key not in model]
        if missing:
            raise InputError(f"clip_config must have {', '.join(MODEL_KEYS)}, got {str(file)!r} without {missing[0]}")
        open_clip.CLIPVisionCfg(**model["vision_cfg"])
        open_clip.CLIPTextCfg(**model["text_cfg"])
    except InputError:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"clip_config must be an open_clip model config, got {str(file)!r}: {error}") from error
    return model, config.get("preprocess_cfg", {})
