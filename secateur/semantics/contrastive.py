"""Contrastive training of a small CLIP on captioned pictures."""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from torch import Tensor
from torch.nn import functional

from secateur.semantics.config import ContrastiveConfig
from secateur.streams import stream_seed

log = logging.getLogger(__name__)

REPORT_STEPS = 100


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: sums come out the same on every machine size, and small layers lose nothing by it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_clip(
    model_config: dict[str, Any],
    picture_N3HW: Tensor,
    caption_N: Sequence[str],
    prompts: Sequence[str],
    config: ContrastiveConfig,
) -> dict[str, Tensor]:
    """Train a model from scratch on pictures and their captions.

    Pictures with the same caption are not each other's negatives: the contrastive loss is taken over groups in which
    every caption stands once, each time in one of the prompts.

    Args:
        model_config: Of `open_clip.CLIP`.
        picture_N3HW: Preprocessed pictures, float32.
        caption_N: The words that go into a prompt.
        prompts: Texts with one `{}`.
        config: Of the training.

    Returns:
        The weights, as a state dict.
    """
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed("contrastive weights", config.seed))
        model = open_clip.CLIP(**model_config).to(memory_format=torch.channels_last)
        fit(model, picture_N3HW, caption_N, prompts, config)
    return {name: value.contiguous() for name, value in model.state_dict().items()}


def fit(
    model: Any,
    picture_N3HW: Tensor,
    caption_N: Sequence[str],
    prompts: Sequence[str],
    config: ContrastiveConfig,
) -> None:
    """Run the optimiser; see `train_clip`."""
    random = np.random.default_rng(stream_seed("contrastive batches", config.seed))
    words = sorted(set(caption_N))
    members = [np.flatnonzero(np.array(caption_N) == word) for word in words]
    tokens = open_clip.SimpleTokenizer(context_length=model.context_length)(
        [prompt.replace("{}", word) for word in words for prompt in prompts]
    )
    optimizer, schedule = make_optimizer(model, config)
    loss_function = open_clip.ClipLoss()
    started = time.monotonic()
    for step in range(1, config.steps + 1):
        chosen_GC = np.stack([random.choice(m, config.groups, replace=len(m) < config.groups) for m in members], axis=1)
        prompt_GC = random.integers(len(prompts), size=chosen_GC.shape) + np.arange(len(words)) * len(prompts)
        batch_B3HW = augment(picture_N3HW[torch.from_numpy(chosen_GC.ravel())], random, config)
        image_GCD = model.encode_image(batch_B3HW, normalize=True).reshape(*chosen_GC.shape, -1)
        text_GCD = model.encode_text(tokens, normalize=True)[torch.from_numpy(prompt_GC)]
        scale = model.logit_scale.exp()
        losses = [loss_function(image, text, scale) for image, text in zip(image_GCD, text_GCD, strict=True)]
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % REPORT_STEPS == 0 or step == config.steps:
            log.info("step %d of %d, contrastive loss %.3f", step, config.steps, loss.item())
    log.info("trained on %d captioned pictures in %.1f s", len(caption_N), time.monotonic() - started)


def make_optimizer(
    model: Any, config: ContrastiveConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW with a one-cycle schedule; the vocabulary, of which a handful of words occurs, stays as it was drawn."""
    model.token_embedding.weight.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.15
    )


def augment(picture_B3HW: Tensor, random: np.random.Generator, config: ContrastiveConfig) -> Tensor:
    """Turn, stretch and shift pictures a little, and add noise."""
    size = len(picture_B3HW)

    def drawn(reach: float) -> npt.NDArray[np.float64]:
        return random.uniform(-reach, reach, size)

    angle_B, across_B, down_B = drawn(math.radians(config.rotation)), 1 + drawn(config.scale), 1 + drawn(config.scale)
    cos_B, sin_B = np.cos(angle_B), np.sin(angle_B)
    rows = [
        [across_B * cos_B, -across_B * sin_B, drawn(2 * config.shift)],  # the grid runs from -1 to 1
        [down_B * sin_B, down_B * cos_B, drawn(2 * config.shift)],
    ]
    map_B23 = torch.from_numpy(np.array(rows).transpose(2, 0, 1).astype(np.float32))
    grid_BHW2 = functional.affine_grid(map_B23, list(picture_B3HW.shape), align_corners=False)
    moved_B3HW = functional.grid_sample(picture_B3HW, grid_BHW2, padding_mode="border", align_corners=False)
    noise_B1HW = random.standard_normal((size, 1, *picture_B3HW.shape[2:]), dtype=np.float32)
    noisy_B3HW = moved_B3HW + config.noise * torch.from_numpy(noise_B1HW)
    return noisy_B3HW.contiguous(memory_format=torch.channels_last)
