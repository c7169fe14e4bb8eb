"""A folder of class folders, with or without folders for the splits above them."""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from secateur.dataset.images import EXTENSIONS
from secateur.dataset.sources.location import walk
from secateur.dataset.sources.source import SPLIT_NAMES, Picture, Source, class_name, printable, read_file
from secateur.errors import InputError

log = logging.getLogger(__name__)


def read_folder(folder: Path) -> Source:
    """Find the pictures of a folder; files that are no pictures by their names are left out.

    Raises:
        InputError: No picture in a class folder, or two folders for one class.
    """
    roots = split_roots(folder)
    classes = sorted({name for _, root in roots for name in class_folders(root)})
    pictures = [picture for split, root in roots for picture in find_pictures(folder, root, split)]
    if not pictures:
        raise InputError(
            f"source must hold pictures in class folders ({', '.join(sorted(EXTENSIONS))}), got none in {str(folder)!r}"
        )
    return Source(printable(folder.resolve().name), iter(pictures), tuple(classes))


def split_roots(folder: Path) -> list[tuple[str, Path]]:
    """The folders that hold the class folders, each with its split; the folder itself where there are no splits.

    A class may be called "train": only a folder with further ones in it counts as that of a split.
    """
    top = folders_in(folder)
    roots = [(SPLIT_NAMES[p.name.lower()], p) for p in top if p.name.lower() in SPLIT_NAMES and folders_in(p)]
    for other in top if roots else []:
        if all(other != root for _, root in roots):
            log.warning("left out the folder %r: it is beside those of the splits", printable(other.name))
    return roots or [("", folder)]


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, hidden ones left out."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def class_folders(root: Path) -> dict[str, Path]:
    """The class folders, also those without a picture, by the names of their classes.

    Raises:
        InputError: Two names that are one in another Unicode form.
    """
    found: dict[str, Path] = {}
    for folder in folders_in(root):
        name = class_name(folder.name)
        if name in found:
            raise InputError(
                f"class names must differ by more than Unicode form, got the folders {found[name].name!a} and "
                f"{folder.name!a}"
            )
        found[name] = folder
    return found


def find_pictures(folder: Path, root: Path, split: str) -> Iterator[Picture]:
    """The pictures in the class folders of a split, sorted."""
    for file in sorted(p for p in root.iterdir() if p.suffix.lower() in EXTENSIONS and not p.name.startswith(".")):
        if not file.is_dir():
            log.warning("left out %r: it is in no class folder", printable(str(file.relative_to(folder))))
    for name, class_folder in class_folders(root).items():
        for file in walk(class_folder):
            # Also links to nothing, which are set aside by name; neither pipes nor devices.
            if file.suffix.lower() in EXTENSIONS and (file.is_file() or not file.exists()):
                yield Picture(partial(read_file, file), name, split, printable(str(file.relative_to(folder))))
