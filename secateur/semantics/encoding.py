"""Pictures of a table to vectors: they are decoded and resized in threads while the encoder works on earlier ones."""

import logging
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from secateur.dataset.images import decode
from secateur.dataset.table import ImageTable
from secateur.errors import InputError
from secateur.semantics.clip import Clip
from secateur.semantics.preprocess import Preprocess

log = logging.getLogger(__name__)

BATCHES_AHEAD = 2
PICTURES_PER_TASK = 16  # a task for each would cost as much as a small picture itself
REPORT_SECONDS = 10.0

Positions = npt.NDArray[np.int64]


def encode_rows(
    clip: Clip, table: ImageTable, row_N: Positions, batch: int, workers: int
) -> Iterator[npt.NDArray[np.float16]]:
    """Embed rows of a table, batch by batch, as unit vectors (B, D); progress goes to the log.

    Args:
        clip: The model.
        table: With the pictures.
        row_N: Rows of it, in the order that is wanted.
        batch: Pictures per step of the encoder.
        workers: Threads that decode.

    Raises:
        InputError: A picture that does not decode, or a model that gives no numbers.
    """
    progress = Progress(len(row_N))
    for vector_BD in one_behind(
        clip.encode_pixels(pixel_BHW3)
        for pixel_BHW3 in read_batches(table, row_N, clip.preprocess, batch, workers, pinned=clip.device.type == "cuda")
    ):
        if not torch.isfinite(vector_BD).all():
            raise InputError(f"clip must give finite embeddings, got others in {clip.precision}")
        progress.add(len(vector_BD))
        yield vector_BD.to("cpu", torch.float16).numpy()


def one_behind(vectors: Iterator[Tensor]) -> Iterator[Tensor]:
    """Give each item once the next one has been asked for: a GPU has work while the last result is fetched."""
    last: Tensor | None = None
    for vector_BD in vectors:
        if last is not None:
            yield last
        last = vector_BD
    if last is not None:
        yield last


def read_batches(
    table: ImageTable, row_N: Positions, preprocess: Preprocess, batch: int, workers: int, *, pinned: bool = False
) -> Iterator[Tensor]:
    """Decode and resize pictures a few batches ahead, uint8 (B, H, W, 3).

    Args:
        table: With the pictures.
        row_N: Rows of it.
        preprocess: Of the model.
        batch: Pictures per batch.
        workers: Threads.
        pinned: Whether a GPU is to copy the batches out of memory while it works.
    """

    def fill(pixel_BHW3: npt.NDArray[np.uint8], row_B: Positions) -> None:
        for pixel_HW3, row in zip(pixel_BHW3, row_B.tolist(), strict=True):
            try:
                pixel_HW3[:] = preprocess.pixels(decode(table.image(row)))
            except (OSError, ValueError, SyntaxError) as error:
                raise InputError(f"pictures must decode, got {table.source(row)!r}, which does not: {error}") from error

    def start(row_B: Positions) -> tuple[Tensor, list[Future[None]]]:
        pixel_BHW3 = torch.empty((len(row_B), *preprocess.size, 3), dtype=torch.uint8, pin_memory=pinned)
        cuts = range(PICTURES_PER_TASK, len(row_B), PICTURES_PER_TASK)
        parts = zip(np.split(pixel_BHW3.numpy(), cuts), np.split(row_B, cuts), strict=True)
        return pixel_BHW3, [pool.submit(fill, *part) for part in parts]

    ahead: deque[tuple[Tensor, list[Future[None]]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(row_N), batch):
            ahead.append(start(row_N[first : first + batch]))
            if len(ahead) > BATCHES_AHEAD:
                yield finished(*ahead.popleft())
        while ahead:
            yield finished(*ahead.popleft())


def finished(pixel_BHW3: Tensor, tasks: list[Future[None]]) -> Tensor:
    """A batch once all that fill it are done."""
    for task in tasks:
        task.result()
    return pixel_BHW3


class Progress:
    """Says now and then how many pictures are done, how fast, and how long the rest will take."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.started = self.reported = time.monotonic()

    def add(self, pictures: int) -> None:
        """Count pictures that are done."""
        self.done += pictures
        now = time.monotonic()
        if self.done < self.total and now - self.reported < REPORT_SECONDS:
            return
        self.reported = now
        speed = self.done / max(now - self.started, 1e-9)
        left = f", {(self.total - self.done) / speed:.0f} s left" if self.done < self.total else ""
        log.info("embedded %d of %d new pictures, %.0f pictures/s%s", self.done, self.total, speed, left)
