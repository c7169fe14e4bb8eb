"""A data set of torchvision by its name, from the folder that torchvision keeps it in; nothing is downloaded."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from secateur.dataset.images import encode_bmp
from secateur.dataset.sources.location import SPLIT_ARGUMENTS, TRAIN_OR_TEST, Location
from secateur.dataset.sources.source import SPLIT_NAMES, Picture, Source, class_name, read_file
from secateur.errors import InputError


def read_torchvision(location: Location) -> Source:
    """Open all splits of a data set.

    Raises:
        InputError: It is not in its folder.
    """
    name, root = location.place, location.inside
    opened = [(split, open_split(name, root, arguments)) for split, arguments in split_arguments(name)]
    known = getattr(opened[0][1], "classes", None) or getattr(opened[0][1], "categories", None) or ()
    classes = tuple(class_name(str(c)) for c in known)
    pictures = (picture for split, data in opened for picture in find_pictures(name, split, data, classes))
    return Source(name, pictures, classes)


def split_arguments(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Our name of each split of a data set, with torchvision's arguments for it."""
    if name in TRAIN_OR_TEST:
        return [("train", {"train": True}), ("test", {"train": False})]
    return [
        (SPLIT_NAMES.get(split, "train"), {"split": split})
        for split in SPLIT_ARGUMENTS.get(name, ())  # also trainval
    ] or [("", {})]


def open_split(name: str, root: str, arguments: dict[str, Any]) -> Any:
    """Open a data set, so that it gives the files as they are where torchvision lets it."""
    import inspect

    import torchvision.datasets

    kind = getattr(torchvision.datasets, name)
    if "loader" in inspect.signature(kind.__init__).parameters:
        arguments = arguments | {"loader": lambda path: read_file(Path(path))}
    try:
        return kind(root, **arguments)
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"source must be a folder that holds torchvision's {name}, got {root!r}: "
            f"torchvision.datasets.{name}({root!r}, download=True) fetches it"
        ) from error


def find_pictures(name: str, split: str, data: Any, classes: tuple[str, ...]) -> Iterator[Picture]:
    """The pictures of a split, in torchvision's order."""
    for index in range(len(data)):
        picture, label = data[index]
        load = partial(bytes, picture) if isinstance(picture, bytes) else partial(encode_bmp, np.asarray(picture))
        text = classes[int(label)] if classes else str(int(label))
        yield Picture(load, text, split, "/".join(part for part in (name, split, f"{index:06d}") if part))
