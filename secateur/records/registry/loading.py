"""Published masks and checked-out pictures for a program in Python."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from secateur.dataset.images import decode
from secateur.errors import InputError
from secateur.pruning.mask import Mask, read_mask
from secateur.records.places import places
from secateur.records.registry.checkout import open_version


def load_mask(where: str | Path, registry: str | Path | None = None) -> Mask:
    """Load a mask.

    Args:
        where: A mask file, a folder with one, or the name of a version, such as digits/multimodal-0.7/v1.
        registry: Path or URL of the registry with the version; None for the environment's, see the README.

    Raises:
        InputError: There is no such mask.
    """
    if Path(where).exists():
        return read_mask(where)
    with open_version(str(registry or places().registry), str(where)) as version:
        return version.mask()


class LoadedPictures:
    """Checked-out pictures as a map-style data set of PyTorch: pairs of picture and label.

    Attributes:
        sample_id: Ids, in order.
        classes: Class names, where a label occurs among the pictures.
    """

    def __init__(self, path: Path, transform: Callable[[Image.Image], Any] | None) -> None:
        self.path, self.transform = path, transform
        self._open()

    def _open(self) -> None:
        self._rows = pa.ipc.open_file(pa.memory_map(str(self.path))).read_all()
        self.sample_id: list[str] = self._rows["sample_id"].to_pylist()
        self.label: list[int] = self._rows["label"].to_pylist()
        self.classes: dict[int, str] = dict(zip(self.label, self._rows["class"].to_pylist(), strict=True))

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        picture = decode(bytes(self._rows["image"][index].as_buffer()))
        return (self.transform(picture) if self.transform else picture), self.label[index]

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to worker processes as a file to open."""
        return LoadedPictures, (self.path, self.transform)


def load_pictures(
    folder: str | Path, transform: Callable[[Image.Image], Any] | None = None, split: str = "train"
) -> LoadedPictures:
    """Open what `secateur versions checkout VERSION DIR --as torch` wrote.

    Args:
        folder: That folder.
        transform: Applied to each picture (PIL, RGB), such as `torchvision.transforms.v2.ToImage()`.
        split: Which of the splits that were checked out.

    Raises:
        InputError: There is nothing of the kind.
    """
    path = Path(folder) / f"{split}.arrow"
    if not path.is_file():
        raise InputError(f"folder must be a checkout as torch with {path.name}, got {str(folder)!r}")
    return LoadedPictures(path, transform)
