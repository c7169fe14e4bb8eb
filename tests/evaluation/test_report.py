import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from PIL import Image

from secateur.dataset.table import Row, open_table, write_table
from secateur.evaluation import mask_figures, report
from secateur.evaluation.gallery import ABOUT, galleries, thumbnail
from secateur.pruning.method import Reason


def test_page_is_well_formed_and_holds_all_it_shows(world):
    text = world.text("report.html")
    page = Page(text)
    assert page.links
    assert all(link.startswith("data:image/") for link in page.links)
    assert not re.search(r"https?://|url\(|@import", text)
    assert not {"script", "link", "iframe", "object", "embed", "form"} & set(page.tags)
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text


def test_names_from_data_are_escaped(world):
    text = world.text("report.html")
    assert "<script>" not in text
    assert "<i>0" not in text
    assert "<b>co" not in text
    visible = "".join(Page(text).texts)
    assert "<script>alert('dog')</script>" in visible
    assert "<i>000.bmp" in visible
    assert "pets & <b>co</b>" in visible


def test_summary_is_a_table_that_names_cannot_break(world):
    summary = world.text("summary.md")
    rows = [line for line in summary.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3
    assert {row.count("|") for row in rows} == {8}
    assert "<b>" not in summary
    assert report.cell("a|b\n<i>`") == "a&#124;b &lt;i&gt;&#96;"
    assert "2 of the 10 wrong labels were found inconsistent (recall 20.0" in summary


def test_same_inputs_give_the_same_bytes(world):
    world.evaluate("again")
    for name in ("report.html", "results.json", "summary.md"):
        assert world.text(name) == world.text(name, "again")


def test_every_picture_and_drawing_can_be_told_by_words(world):
    page = Page(world.text("report.html"))
    assert all(image["alt"] for image in page.images)
    assert len(page.labels) >= 9
    assert any(label.startswith("Test accuracy by arm: multimodal ") for label in page.labels)
    assert "caption" in page.tags
    assert page.tags.count("h1") == 1


def test_galleries_show_what_was_dropped_clearest_first(world):
    train, mask = world.table.part("train"), world.mask
    shown = {g.reason: g for g in galleries(train, mask, np.full(60, -1, dtype=np.int32))}
    assert list(shown) == ["inconsistent", "redundant"]
    inconsistent = np.flatnonzero(mask.reason == "inconsistent")
    order = inconsistent[np.argsort(mask.label_probability[inconsistent])]
    assert [p.sample_id for p in shown["inconsistent"].clearest] == train.sample_id[order].tolist()
    first, row = shown["inconsistent"].clearest[0], int(order[0])
    names = train.info.classes
    assert (first.given, first.suggested) == (names[train.label[row]], names[(train.label[row] + 1) % 3])
    assert first.probability == pytest.approx(float(mask.label_probability[row]))
    assert first.source == train.source(row)
    assert first.truth is None
    assert {p.suggested for p in shown["redundant"].clearest} == {None}


def test_large_galleries_show_both_ends_and_doubtful_kept_samples_are_found(world):
    train, mask = world.table.part("train"), world.mask
    kept_N = np.arange(60) >= 40
    reason_N = np.where(kept_N, "kept", "inconsistent").astype(object)
    probability_N = np.arange(60, dtype=np.float32) / 60
    suggested_N = train.label.copy()
    suggested_N[45] = (train.label[45] + 1) % 3
    mask = replace(mask, kept=kept_N, reason=reason_N, label_probability=probability_N, suggested_label=suggested_N)
    inconsistent, doubtful = galleries(train, mask, train.label)
    assert inconsistent.count == 40
    assert [p.sample_id for p in inconsistent.clearest] == train.sample_id[:16].tolist()
    assert [p.sample_id for p in inconsistent.closest] == train.sample_id[39:31:-1].tolist()
    assert [p.sample_id for p in doubtful.clearest] == [train.sample_id[45]]
    assert doubtful.clearest[0].wrong is False


def test_tiny_pictures_keep_their_pixels_and_large_ones_are_scaled_down():
    def encode(pixels):
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        return out.getvalue()

    def open_uri(uri):
        return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))

    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    uri, large = thumbnail(encode(pixels))
    assert not large
    assert np.array_equal(np.asarray(open_uri(uri)), pixels)
    uri, large = thumbnail(encode(np.full((200, 400, 3), 90, dtype=np.uint8)))
    assert large
    assert open_uri(uri).size == (96, 48)


def test_the_page_stays_small_with_large_pictures_that_do_not_compress(world, tmp_path):
    random = np.random.default_rng(0)

    def noise(side):
        out = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (side, side, 3)).astype(np.uint8)).save(out, "BMP")
        return out.getvalue()

    write_table(tmp_path / "t", [Row(noise(96), 0, "train", f"{i}") for i in range(144)], name="n", classes=["one"])
    train = open_table(tmp_path / "t").part("train")
    reasons = [*ABOUT, "kept"]
    filled = {
        k: np.resize(getattr(world.mask, k), 144) for k in ("score", "loss", "label_probability", "suggested_label")
    }
    reason_N = np.repeat(np.array(reasons, dtype=object), 24)
    mask = replace(world.mask, reason=reason_N, kept=reason_N == "kept", **filled)
    mask.suggested_label[:] = 0
    shown = galleries(train, mask, train.label)
    assert sum(len(p.uri) for g in shown for p in [*g.clearest, *g.closest]) < 1_300_000


def test_reasons_of_the_mask_are_those_that_are_drawn():
    assert set(mask_figures.REASONS) == {str(r) for r in Reason}
    assert set(ABOUT) == {str(r) for r in Reason} - {"kept", "floor"}
    template = Path(report.__file__).with_name(report.TEMPLATE).read_text()
    assert all(f".reason-{r}" in template for r in Reason)


def test_many_classes_are_cut_to_those_that_matter(world):
    from secateur.evaluation.charts import chosen_rows

    value_C = np.random.default_rng(0).random(100)
    rows, cut = chosen_rows(value_C)
    assert cut
    assert rows == np.argsort(value_C)[:30].tolist()
    assert chosen_rows(value_C[:30]) == (list(range(30)), False)
    results = world.evaluate()
    confusion_CC = np.eye(100, dtype=np.int64) * 10
    confusion_CC[3, 7] = 5
    confusion_CC[9, 1] = 2
    names = [f"class {c}" for c in range(100)]
    many = replace(
        results, dataset={**results.dataset, "classes": names}, confusion=tuple(map(tuple, confusion_CC.tolist()))
    )
    context = report.confusion_context(many)
    assert context["rows"] == []
    assert context["pairs"] == [
        ("class 3", "class 7", 5, pytest.approx(1 / 3)),
        ("class 9", "class 1", 2, pytest.approx(1 / 6)),
    ]


def test_the_page_of_many_classes_lists_the_commonest_errors(world, monkeypatch):
    monkeypatch.setattr(report, "MAX_CONFUSION", 2)
    results = world.evaluate()
    page = Page(world.text("report.html"))
    assert "The commonest errors." in "".join(page.texts)
    confusion_CC = np.array(results.confusion)
    errors = confusion_CC.sum() - np.trace(confusion_CC)
    assert sum(n for _, _, n, _ in report.confusion_context(results)["pairs"]) == errors


def test_a_full_run_without_a_validation_split_has_a_report(world):
    everything_N = np.ones(60, dtype=bool)
    world.change_mask(kept=everything_N, reason=np.full(60, "kept", dtype=object), score=np.ones(60, dtype=np.float32))
    for path in world.folder.glob("*/seed-*/history.json"):
        path.write_text(re.sub(r'("validation_\w+"): [\d.]+', r"\1: null", path.read_text()))
    world.evaluate()
    text = world.text("report.html")
    Page(text)
    assert "Validation accuracy" not in text
    assert "Dropped per class" not in text
    assert "Score, by" not in text


def test_the_headline_compares_seed_by_seed(world):
    results = world.evaluate()
    arms = [replace(a, accuracy=v) for a, v in zip(results.arms, [(0.9, 0.8), (0.85, 0.83), (0.9, 0.9)], strict=True)]
    text = report.headline(replace(results, arms=tuple(arms)))
    assert text == (
        "With as many samples to train on, that is 1.0 points more than full (+5.0, −3.0 seed by seed); "  # noqa: RUF001
        "5.0 points less than random (+0.0, −10.0 seed by seed)."  # noqa: RUF001
    )
