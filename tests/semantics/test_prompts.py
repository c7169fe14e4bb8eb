import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.errors import InputError
from secateur.semantics.prompts import DEFAULT_TEMPLATES, Prompts, check_templates, class_texts, read_prompts, spoken


def written(tmp_path, content: object):
    file = tmp_path / "prompts"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("red_fox", "red fox"),
        ("__red__fox_", "red fox"),
        ("redFox", "red fox"),
        ("RedFoxCub", "red fox cub"),
        ("HTTPServer", "http server"),
        ("iPhone", "iPhone"),
        ("Ibizan hound", "Ibizan hound"),
        ("T-shirt", "T-shirt"),
        ("0", "0"),
        ("雪豹", "雪豹"),
        ('L\'été "blue"', 'L\'été "blue"'),
    ],
)
def test_a_name_is_said_as_a_person_would(name, expected):
    assert spoken(name) == expected


@settings(deadline=None)
@given(st.text(max_size=30))
def test_a_said_name_has_single_spaces_and_loses_no_letter(name):
    said = spoken(name)
    assert spoken(said) == said
    assert said == " ".join(said.split())
    assert "".join(said.split()).lower() == "".join(name.replace("_", " ").split()).lower()


@pytest.mark.parametrize("own", [(), ("the {}", "{}")])
def test_templates_of_the_data_set_come_before_the_default_ones(own):
    found = class_texts(["red_fox", "lynx"], Prompts(), own)
    assert list(found) == ["red_fox", "lynx"]
    assert found["red_fox"] == tuple(t.format("red fox") for t in own or DEFAULT_TEMPLATES)


def test_the_default_templates_are_templates():
    check_templates(DEFAULT_TEMPLATES)
    assert len(set(DEFAULT_TEMPLATES)) == len(DEFAULT_TEMPLATES)


def test_lines_are_templates(tmp_path):
    file = written(tmp_path, "{} at night\n\n  the {}  \n")
    assert read_prompts(file) == Prompts(("{} at night", "the {}"))
    assert class_texts(["fox"], read_prompts(file), ("ignored {}",)) == {"fox": ("fox at night", "the fox")}


def test_json_names_and_describes_classes(tmp_path):
    classes = {
        "n01440764": {"name": "tench", "descriptions": ["a {} is a fish", "a green fish"]},
        "n01443537": "goldfish",
        "cat": {"descriptions": ["it meows"]},
    }
    prompts = read_prompts(written(tmp_path, {"templates": ["the {}"], "classes": classes}))
    assert class_texts(["n01440764", "n01443537", "cat", "dog"], prompts) == {
        "n01440764": ("a tench is a fish", "a green fish"),
        "n01443537": ("the goldfish",),
        "cat": ("it meows",),
        "dog": ("the dog",),
    }


def test_no_file_says_nothing():
    assert read_prompts("") == Prompts()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a photo\n", "prompts must have '{}' for the class once in every template, got 'a photo'"),
        ("{} and {}\n", "prompts must have '{}' for the class once in every template, got '{} and {}'"),
        ({"templates": ["the {}", "it"]}, "once in every template, got 'it'"),
        ("\n \n", "prompts must hold one template or more, got"),
        ('{"templates": [', "prompts must be JSON or lines of templates, got"),
        ({"template": ["{}"]}, "prompts must have the fields templates and classes alone, got 'template'"),
        ({"templates": "{}"}, "prompts must give templates as texts, got '{}'"),
        ({"templates": []}, "prompts must give templates as texts, got []"),
        ({"classes": ["cat"]}, "prompts must name classes in an object, got ['cat']"),
        ({"classes": {"cat": 3}}, "prompts must give class 'cat' a name or an object, got 3"),
        ({"classes": {"cat": {"say": "x"}}}, "prompts must have the fields name and descriptions alone, got 'say'"),
        ({"classes": {"cat": ""}}, "prompts must give the name of 'cat' as texts, got ['']"),
        ({"classes": {"cat": {"descriptions": [" "]}}}, "prompts must give descriptions of 'cat' as texts, got [' ']"),
    ],
)
def test_a_bad_file(content, message, tmp_path):
    with pytest.raises(InputError, match=re.escape(message)):
        read_prompts(written(tmp_path, content))


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(InputError, match=r"prompts must be a file of text, got '.*nowhere'"):
        read_prompts(tmp_path / "nowhere")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"prompts must be a file of text, got '.*bytes'"):
        read_prompts(tmp_path / "bytes")


@pytest.mark.parametrize(
    ("classes", "prompts", "message"),
    [
        (["n01440764"], Prompts(), "class names must be words, got the WordNet id 'n01440764': name it in a file"),
        (["cat", "_"], Prompts(), "class names must have words in them, got '_'"),
        (["cat", ""], Prompts(), "class names must have words in them, got ''"),
        (["red_fox", "redFox"], Prompts(), "class names must differ, got 'red fox' for both 'red_fox' and 'redFox'"),
        (["a", "b"], Prompts(names={"a": "b"}), "class names must differ, got 'b' for both 'a' and 'b'"),
        (["cat"], Prompts(names={"dog": "hound"}), "prompts must be for classes of the data set, got 'dog'"),
        (["cat"], Prompts(descriptions={"dog": ("x",)}), "prompts must be for classes of the data set, got 'dog'"),
    ],
)
def test_classes_that_cannot_be_said(classes, prompts, message):
    with pytest.raises(InputError, match=re.escape(message)):
        class_texts(classes, prompts)


def test_a_template_of_the_data_set_without_a_place():
    with pytest.raises(InputError, match="for the class once in every template, got 'a photo'"):
        class_texts(["cat"], Prompts(), ("a photo",))
