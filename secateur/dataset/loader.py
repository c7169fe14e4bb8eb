"""Batches of pictures: decoded once and held on the device where they fit, else decoded by workers on the way."""

import logging
import os
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from secateur.cores import cores
from secateur.dataset.images import decode, fit
from secateur.dataset.table import ImageTable
from secateur.errors import InputError
from secateur.streams import Keys, uniform

log = logging.getLogger(__name__)

RESIDENT_BYTES = 4 * 2**30
SAMPLED_SIZES = 64

Positions = npt.NDArray[np.int64]


def local_processes() -> int:
    """Processes that train side by side on this machine, as torchrun says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def common_size(table: ImageTable, image_size: int) -> int:
    """The side in pixels that pictures are brought to: the wanted one, or the one they have.

    Raises:
        InputError: None was wanted and the pictures differ.
    """
    if image_size:
        return image_size
    sampled = np.unique(np.linspace(0, len(table) - 1, SAMPLED_SIZES).astype(int))
    sizes = {decode(table.image(int(i))).size for i in sampled}
    if len(sizes) > 1 or len(set(next(iter(sizes)))) > 1:
        raise InputError(
            f"image_size must be given where pictures are not square and of one size, got sizes {sorted(sizes)[:3]}"
        )
    return next(iter(sizes))[0]


class DecodedPictures(torch.utils.data.Dataset[Tensor]):
    """The pictures of a table as uint8 (3, size, size)."""

    def __init__(self, table: ImageTable, size: int) -> None:
        self.table, self.size = table, size

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(fit(decode(self.table.image(index)), self.size).copy())


class Pictures:
    """The pictures of a table, in batches by position, as uint8 (B, 3, size, size) on a device."""

    def __init__(self, table: ImageTable, size: int, device: torch.device, resident: bool | None = None) -> None:
        """Choose how to hold the pictures.

        Args:
            table: The rows to read.
            size: Pixels of a side.
            device: Where batches are wanted.
            resident: Whether to decode all at once and hold them on the device; None does so up to 4 GiB,
                which the processes of a machine share.
        """
        self.device, self.decoded = device, DecodedPictures(table, size)
        bytes_needed = len(table) * 3 * size * size
        self.resident_N3HW: Tensor | None = None
        if resident if resident is not None else bytes_needed <= RESIDENT_BYTES // local_processes():
            self.resident_N3HW = torch.empty((len(table), 3, size, size), dtype=torch.uint8)
            for index in range(len(table)):
                self.resident_N3HW[index] = self.decoded[index]
            self.resident_N3HW = self.resident_N3HW.to(device)
        else:
            log.info("pictures are decoded on the way: %.1f GiB would not be held", bytes_needed / 2**30)

    def batches(self, batches: list[Positions]) -> Iterator[Tensor]:
        """The pictures of each batch of positions, in that order."""
        if self.resident_N3HW is not None:
            for index_B in batches:
                yield self.resident_N3HW[torch.from_numpy(index_B).to(self.device)]
            return
        workers = min(cores() // local_processes(), len(batches))
        loader = torch.utils.data.DataLoader(
            self.decoded,
            batch_sampler=[index_B.tolist() for index_B in batches],
            num_workers=workers if workers > 1 else 0,
            pin_memory=self.device.type == "cuda",
        )
        for batch_B3HW in loader:
            yield batch_B3HW.to(self.device, non_blocking=True)


def augment(pictures_B3HW: Tensor, key_B: Keys, kind: str, seed: int, epoch: int) -> Tensor:
    """Shift and mirror pictures on their device; a sample meets the same change in an epoch, whatever else is in it.

    Args:
        pictures_B3HW: uint8 or float (B, 3, H, W).
        key_B: Random-stream keys of the samples.
        kind: "none", "shift" (by up to an eighth of the side, edges reflected) or "shift-flip".
        seed: Of the run.
        epoch: Since training began.
    """
    if kind == "none":
        return pictures_B3HW
    side = pictures_B3HW.shape[-1]
    reach = max(1, side // 8)
    drawn = [uniform(key_B, "augmentation", axis, seed, epoch) for axis in ("down", "across", "mirror")]
    down_B, across_B = (np.floor(u * (2 * reach + 1)).astype(np.int64) - reach for u in drawn[:2])
    place = np.arange(side)
    row_BH = reflect(place[None, :] + down_B[:, None], side)
    column_BW = reflect(place[None, :] + across_B[:, None], side)
    if kind == "shift-flip":
        column_BW = np.where(drawn[2][:, None] < 0.5, column_BW, column_BW[:, ::-1])
    device = pictures_B3HW.device
    batch = torch.arange(len(key_B), device=device)[:, None, None]
    rows = torch.from_numpy(row_BH).to(device)[:, :, None]
    columns = torch.from_numpy(np.ascontiguousarray(column_BW)).to(device)[:, None, :]
    return pictures_B3HW.permute(0, 2, 3, 1)[batch, rows, columns].permute(0, 3, 1, 2)


def reflect(place: npt.NDArray[np.int64], side: int) -> npt.NDArray[np.int64]:
    """Positions outside [0, side) mirrored back at the edges."""
    place = np.abs(place)
    return np.where(place >= side, 2 * (side - 1) - place, place)
