"""What the text given as `source` means. Everything here is quick, and asks no network."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec

from secateur.dataset import digits
from secateur.dataset.images import EXTENSIONS
from secateur.dataset.rows import INFO_FILE
from secateur.errors import InputError, require_choice

FILE_KINDS = {
    "columns": (".csv", ".tsv", ".parquet", ".arrow"),
    "shards": (".tar", ".tar.gz", ".tgz"),
    "dvc": (".dvc",),
}
IN_FOLDERS = {"columns": (".parquet", ".arrow"), "shards": (".tar",)}  # a folder with any of them is read as a whole
WITH_PASSWORD = re.compile(r"://[^/\s]*:[^/\s]*@")
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
FORMS = {
    "torchvision": (re.compile(r"(?P<place>\w+):(?P<inside>.+)"), "torchvision:NAME:ROOT"),
    "hf": (
        re.compile(r"(?P<place>[\w.-]+/[\w.-]+)(?:#(?P<inside>[^@]*))?(?:@(?P<revision>\S+))?"),
        "hf:OWNER/NAME, and then perhaps #PATH and @REVISION",
    ),
    "dvc": (
        re.compile(r"(?P<place>.+)#(?P<inside>[^#@]+)(?:@(?P<revision>[^#\s]+))?"),
        "dvc:REPOSITORY#PATH, and then perhaps @REVISION",
    ),
}
# Beside torchvision's names, the arguments that give its splits; those with neither split are cut by hash.
TRAIN_OR_TEST = ("CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "QMNIST", "USPS")
SPLIT_ARGUMENTS = {
    "Country211": ("train", "valid", "test"),
    "DTD": ("train", "val", "test"),
    "FGVCAircraft": ("train", "val", "test"),
    "Flowers102": ("train", "val", "test"),
    "Food101": ("train", "test"),
    "GTSRB": ("train", "test"),
    "Imagenette": ("train", "val"),
    "OxfordIIITPet": ("trainval", "test"),
    "RenderedSST2": ("train", "val", "test"),
    "STL10": ("train", "test"),
    "StanfordCars": ("train", "test"),
    "SVHN": ("train", "test"),
}
WITHOUT_SPLITS = ("Caltech101", "Caltech256", "EuroSAT", "SUN397")


@dataclass(frozen=True)
class Location:
    """Where a source lies, and how it is read."""

    kind: str  # "digits", "table", "folder", "columns", "shards", "torchvision", "hf" or "dvc"
    place: str  # a path, a URL, a pattern of either, or the name of a data set or repository
    inside: str = ""  # a path in a repository; of torchvision, the root folder
    revision: str = ""  # a branch, tag or commit; empty: the newest, or none


def parse(source: str) -> Location:
    """Tell what a source is, by its form and by what lies there.

    Raises:
        InputError: No form that is known, or nothing there.
    """
    if source == digits.NAME:
        return Location("digits", source)
    kind, _, rest = source.partition(":")
    if kind in FORMS:
        pattern, form = FORMS[kind]
        found = pattern.fullmatch(rest)
        if not found:
            raise InputError(f"source must be like {form}, got {public(source)!r}")
        if kind == "dvc" and WITH_PASSWORD.search(found["place"]):
            raise InputError(
                f"source must be without a password, which git takes from its own settings, got {public(source)!r}"
            )
        return Location(kind, **{name: text or "" for name, text in found.groupdict().items()})
    if is_url(source) or not Path(source).is_dir():
        return Location(file_kind(source), source)
    return Location(folder_kind(Path(source)), source)


def file_kind(source: str) -> str:
    """Tell the kind of a file, or of a range of them, by its name."""
    for kind, endings in FILE_KINDS.items():
        if source.lower().endswith(endings):
            return kind
    if is_url(source) or Path(source).exists():
        known = ", ".join(ending for endings in FILE_KINDS.values() for ending in endings)
        raise InputError(f"source must be a folder or end in one of {known}, got {public(source)!r}")
    raise InputError(f"source must be 'digits', a folder or a file, got {source!r}, which is not there")


def folder_kind(folder: Path) -> str:
    """Tell the kind of a folder by the files in it: pictures count first, then tables, then shards."""
    if (folder / INFO_FILE).is_file():
        return "table"
    if next(walk(folder), None) is None:
        raise InputError(f"source must be a folder with pictures, got {str(folder)!r}, which is empty")
    found = "folder"
    for file in walk(folder):
        suffix = file.suffix.lower()
        if suffix in EXTENSIONS:
            return "folder"
        if suffix in IN_FOLDERS["columns"]:
            found = "columns"
        elif suffix in IN_FOLDERS["shards"] and found == "folder":
            found = "shards"
    return found


def check(location: Location) -> None:
    """Check what can be checked of a source before any work.

    Raises:
        InputError: A file or folder that is not there, or a name or protocol that is not known.
    """
    place = location.place
    if location.kind == "torchvision":
        require_choice("source", place, (*TRAIN_OR_TEST, *SPLIT_ARGUMENTS, *WITHOUT_SPLITS))
        if not Path(location.inside).is_dir():
            raise InputError(f"source must be torchvision:NAME:ROOT with a folder for ROOT, got {location.inside!r}")
    elif location.kind == "dvc" and not is_repository_url(place) and not Path(place).exists():
        raise InputError(f"source must be a DVC repository or pointer that is there, got {place!r}")
    elif location.kind in ("columns", "shards"):
        for file in files_of(location):
            if is_url(file):
                check_protocol(file)
            elif not Path(file).is_file():
                raise InputError(f"source must be 'digits', a folder or a file, got {file!r}, which is not there")


def check_protocol(url: str) -> None:
    """Check that fsspec can read URLs of this kind."""
    try:
        fsspec.get_filesystem_class(url.split("://")[0])
    except (ImportError, ValueError) as error:
        raise InputError(f"source must be a URL that can be read here, got {public(url)!r}: {error}") from error


def files_of(location: Location) -> list[str]:
    """The files of a source of kind "columns" or "shards", sorted, or in the order of the range."""
    if not is_url(location.place) and Path(location.place).is_dir():
        return [
            str(file)
            for file in walk(Path(location.place))
            if file.suffix.lower() in IN_FOLDERS[location.kind]
            and not file.name.startswith("cache-")  # which `datasets` leaves there
        ]
    return list(expand(location.place))


def title_of(file: str, location: Location) -> str:
    """What a person knows one of the files by: its path in the folder of the source, or its name."""
    return os.path.relpath(file, location.place) if Path(location.place).is_dir() else file.rpartition("/")[2]


def expand(pattern: str) -> Iterator[str]:
    """Write out ranges of numbers.

    >>> list(expand("train-{08..10}.tar"))
    ['train-08.tar', 'train-09.tar', 'train-10.tar']
    """
    found = RANGE.search(pattern)
    if not found:
        yield pattern
        return
    first, last = found.groups()
    for number in range(int(first), int(last) + 1):
        yield from expand(f"{pattern[: found.start()]}{number:0{len(first)}d}{pattern[found.end() :]}")


def walk(folder: Path) -> Iterator[Path]:
    """All files under a folder, sorted, those hidden or in a hidden folder left out.

    Links to folders are followed, those to one folder once.

    Raises:
        InputError: A folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"source must be a folder that can be read, got {error.filename!r}: {error.strerror}")

    linked = {os.path.realpath(folder)}
    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        entered = []
        for name in sorted(name for name in folders if not name.startswith(".")):
            path = os.path.join(root, name)
            target = os.path.realpath(path) if os.path.islink(path) else path
            if target not in linked:
                entered.append(name)
            if target != path:
                linked.add(target)
        folders[:] = entered
        yield from (Path(root, name) for name in sorted(files) if not name.startswith("."))


def absolute(source: str) -> str:
    """The same source with absolute paths."""
    location = parse(source)
    kind, place = location.kind, location.place
    if kind == "torchvision":
        return f"torchvision:{place}:{Path(location.inside).resolve()}"
    if kind in ("digits", "hf") or is_url(place) or (kind == "dvc" and is_repository_url(place)):
        return source
    if kind == "dvc" and location.inside:
        return written(Location("dvc", str(Path(place).resolve()), location.inside, location.revision))
    return str(Path(place).resolve())


def written(location: Location) -> str:
    """The text that means a place in a repository; see `parse`."""
    inside = f"#{location.inside}" if location.inside else ""
    revision = f"@{location.revision}" if location.revision else ""
    return f"{location.kind}:{location.place}{inside}{revision}"


def is_url(source: str) -> bool:
    """Whether a file lies elsewhere, at a URL."""
    return "://" in source


def public(url: str) -> str:
    """A URL without user, password and query, which may hold a signature; anything else as it is.

    >>> public("https://ada:secret@host/a.png?signature=1f"), public("why?.png")
    ('https://host/a.png', 'why?.png')
    """
    return re.sub(r"(?<=://)[^/\s]*@", "", url).partition("?")[0] if is_url(url) else url


def is_repository_url(place: str) -> bool:
    """Whether a git repository lies elsewhere, at a URL or at `host:path`."""
    return is_url(place) or re.match(r"[\w.-]+@[\w.-]+:", place) is not None
