"""The texts that CLIP is asked about: one or more for every class, from templates or descriptions."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secateur.errors import InputError

PLACE = "{}"
# Of good and bad photographs, of one and several; a mean over them is steadier than any.
DEFAULT_TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a picture of one {}, close up.",
    "a photo of several {}.",
    "a small or blurred photo of a {}.",
    "{}",
)
WORDNET_ID = re.compile(r"n\d{8}")
# Where two words meet in camel case; a single letter before a capital, as in iPhone, is no word.
CAMEL = re.compile(r"(?<=[a-z]{2})(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")


@dataclass(frozen=True)
class Prompts:
    """What a prompts file says.

    Attributes:
        templates: Texts with one `{}` for the name of a class; none for the data set's own, or the default ones.
        names: What a class is called in texts, by its name in the data set.
        descriptions: Texts that stand in the place of the templates, by the class's name in the data set.
    """

    templates: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    descriptions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_prompts(file: str | Path) -> Prompts:
    """Read a prompts file; an empty path gives nothing of its own.

    The file holds lines, each a template, or JSON: `{"templates": [...], "classes": {"n01440764": {"name": "tench",
    "descriptions": [...]}}}`. Every part may be left out, and a text in the place of a class's object is its name.

    Raises:
        InputError: It is not there, or is neither; or a template has no `{}` or two.
    """
    if not str(file):
        return Prompts()
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"prompts must be a file of text, got {str(file)!r}: {error}") from error
    if text.lstrip().startswith("{") and not text.lstrip().startswith(PLACE):
        try:
            read = json.loads(text)
        except ValueError as error:
            raise InputError(f"prompts must be JSON or lines of templates, got {str(file)!r}: {error}") from error
        prompts = from_json(read, str(file))
    else:
        prompts = Prompts(tuple(line.strip() for line in text.splitlines() if line.strip()))
        if not prompts.templates:
            raise InputError(f"prompts must hold one template or more, got {str(file)!r}, which is empty")
    check_templates(prompts.templates)
    return prompts


def from_json(read: dict[str, Any], file: str) -> Prompts:
    """The prompts in the JSON of a file.

    Raises:
        InputError: It has other fields, or values of another kind.
    """
    require_fields(read, ("templates", "classes"), file)
    names: dict[str, str] = {}
    descriptions: dict[str, tuple[str, ...]] = {}
    classes = read.get("classes", {})
    if not isinstance(classes, dict):
        raise InputError(f"prompts must name classes in an object, got {classes!r} in {file!r}")
    for label, said in classes.items():
        said = {"name": said} if isinstance(said, str) else said
        if not isinstance(said, dict):
            raise InputError(f"prompts must give class {label!r} a name or an object, got {said!r} in {file!r}")
        require_fields(said, ("name", "descriptions"), file)
        if "name" in said:
            names[label] = texts([said["name"]], f"the name of {label!r}", file)[0]
        if "descriptions" in said:
            descriptions[label] = texts(said["descriptions"], f"descriptions of {label!r}", file)
    return Prompts(texts(read["templates"], "templates", file) if "templates" in read else (), names, descriptions)


def require_fields(read: dict[str, Any], known: Sequence[str], file: str) -> None:
    """Check that an object has no other fields than those known."""
    unknown = sorted(set(read) - set(known))
    if unknown:
        raise InputError(f"prompts must have the fields {' and '.join(known)} alone, got {unknown[0]!r} in {file!r}")


def texts(value: Any, what: str, file: str) -> tuple[str, ...]:
    """Check that something is a list of texts with words in them."""
    if not isinstance(value, list) or not value or not all(isinstance(text, str) and text.strip() for text in value):
        raise InputError(f"prompts must give {what} as texts, got {value!r} in {file!r}")
    return tuple(text.strip() for text in value)


def check_templates(templates: Sequence[str]) -> None:
    """Check that the name of a class has its place in every template.

    Raises:
        InputError: One has no `{}`, or two.

    >>> check_templates(["a photo"])
    Traceback (most recent call last):
    secateur.errors.InputError: prompts must have '{}' for the class once in every template, got 'a photo'
    """
    for template in templates:
        if template.count(PLACE) != 1:
            raise InputError(f"prompts must have '{PLACE}' for the class once in every template, got {template!r}")


def spoken(name: str) -> str:
    """The name of a class as one would say it: underscores are spaces, and camel case is taken apart.

    >>> spoken("red_fox"), spoken("GreatWhiteShark"), spoken("iPhone"), spoken("Ibizan hound")
    ('red fox', 'great white shark', 'iPhone', 'Ibizan hound')
    """
    words = " ".join(name.replace("_", " ").split())
    return CAMEL.sub(" ", words).lower() if CAMEL.search(words) else words


def class_texts(classes: Sequence[str], prompts: Prompts, templates: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """The texts of every class, by its name in the data set.

    Args:
        classes: Names of all classes.
        prompts: What the user says.
        templates: The data set's own, where the user names none.

    Raises:
        InputError: A class without words, two that are called the same, a WordNet id without a name, prompts for a
            class that is not there, or a template with no `{}` or two.

    >>> class_texts(["red_fox", "n02118333"], Prompts(("a {}.",), {"n02118333": "fox"}))
    {'red_fox': ('a red fox.',), 'n02118333': ('a fox.',)}
    """
    for known in (prompts.names, prompts.descriptions):
        unknown = sorted(set(known) - set(classes))
        if unknown:
            raise InputError(f"prompts must be for classes of the data set, got {unknown[0]!r}, which is none")
    called: dict[str, str] = {}
    for label in classes:
        name = prompts.names.get(label) or spoken(label)
        if WORDNET_ID.fullmatch(name) and label not in prompts.descriptions:
            raise InputError(
                f"class names must be words, got the WordNet id {name!r}: name it in a file for --prompts, "
                f'as in {{"classes": {{"{name}": "tench"}}}}'
            )
        if not any(character.isalnum() for character in name):
            raise InputError(f"class names must have words in them, got {label!r}: name it in a file for --prompts")
        if name in called:
            raise InputError(f"class names must differ, got {name!r} for both {called[name]!r} and {label!r}")
        called[name] = label
    templates = prompts.templates or tuple(templates) or DEFAULT_TEMPLATES
    check_templates(templates)
    return {
        label: tuple(text.replace(PLACE, name) for text in prompts.descriptions.get(label, templates))
        for name, label in called.items()
    }
