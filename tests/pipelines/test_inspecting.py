import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from secateur.dataset import ImageTable, open_table
from secateur.pipelines import cli, inspecting
from secateur.pipelines.inspecting import TOO_MANY
from secateur.semantics.embeddings import Embeddings, unit
from secateur.state import STATE_VARIABLE

Invoke = Callable[..., SimpleNamespace]
COLOURS = {"blue": (0, 0, 200), "green": (0, 200, 0), "red": (200, 0, 0)}
EACH = 40


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Calls the command in an empty folder; gives exit code and output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)

    def call(*arguments: object) -> SimpleNamespace:
        with pytest.raises(SystemExit) as end:
            cli.main(["inspect", *map(str, arguments)])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=end.value.code, out=out, err=err)

    return call


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """In the place of CLIP: a picture's embedding is its colour. Notes how many pictures were embedded."""
    asked = []

    def embed(table: ImageTable, *_: object) -> Embeddings:
        from secateur.dataset.images import decode

        asked.append(len(table))
        pixels = [np.asarray(decode(table.image(i)), dtype=np.float32).ravel() for i in range(len(table))]
        texts = [np.full((8, 8, 3), COLOURS[name], dtype=np.float32).ravel() for name in table.info.classes]
        return Embeddings(unit(np.array(pixels)), unit(np.array(texts)), {"model": "colour", "weights": "0f"})

    monkeypatch.setattr(inspecting, "embed", embed)
    return asked


def is_wrong(i: int) -> bool:
    return i % 10 == 3


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures of one colour with noise, in folders by colour; each tenth lies in the next folder."""
    random, names = np.random.default_rng(0), list(COLOURS)
    for c, colour in enumerate(COLOURS.values()):
        for i in range(EACH):
            split = "test" if i >= 30 else "train"
            folder = tmp_path / "colours" / split / names[(c + is_wrong(i)) % 3]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.clip(np.array(colour) + random.integers(-40, 56, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{names[c]}-{i} 'ж'.png")
    return tmp_path / "colours"


def out_of(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / ".secateur" / "inspect").iterdir()
    return folder


def test_it_finds_wrong_labels_and_says_where_everything_is(
    invoke: Invoke, embedded: list[int], pictures: Path, tmp_path: Path
) -> None:
    done = invoke("colours")
    assert (done.code, embedded) == (0, [3 * EACH])
    folder = out_of(tmp_path)
    assert folder.name.startswith("colours-")
    findings = pq.read_table(folder / "findings.parquet").to_pylist()
    suspected = {Path(row["source"]).name for row in findings if row["probability_wrong"] > 0.5}
    assert suspected == {f"{name}-{i} 'ж'.png" for name in COLOURS for i in range(EACH) if is_wrong(i)}
    assert all(row["suggested"] == Path(row["source"]).name.partition("-")[0] for row in findings)
    assert (folder / "findings.csv").is_file()
    assert "<h1>" in (folder / "report.html").read_text(encoding="utf-8")
    assert "labels    At least " in done.out
    assert "suspected 12 labels" in done.out
    assert "fit       CLIP fits: " in done.out
    assert f"report    {folder / 'report.html'}\n" in done.out
    assert not list((tmp_path / ".secateur").glob("tmp*"))


@pytest.mark.parametrize(("limit", "code"), [("50%", 0), ("0.01", TOO_MANY)])
def test_the_exit_code_tells_whether_too_many_are_wrong(
    invoke: Invoke, embedded: list[int], pictures: Path, limit: str, code: int
) -> None:
    done = invoke("colours", "--fail-above", limit)
    assert done.code == code
    assert ("error: the estimated fraction of wrong labels must be at most 1.00%, got " in done.err) == bool(code)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["nowhere"], "source must be "),
        (["colours", "--fail-above", "5"], "fail_above must be a fraction in [0, 1] or a percentage, got '5'"),
        (["colours", "--export", "both"], "export must be one of corrected, filtered, none, got 'both'"),
        (["colours", "--suspect-above", "1"], "suspect_above must be in [0, 1), got 1"),
        (["colours", "--audited", "a.csv"], "audited must be a file, got 'a.csv', which is not there"),
        (["colours", "--checkpoint", "w.pt"], "checkpoint must be a file, got 'w.pt'"),
        (["colours", "--out", "colours/train/red/red-0 'ж'.png"], "out must be a folder that can be written, got "),
        ([], "Missing argument"),
    ],
)
def test_wrong_input_is_refused_before_any_work(
    invoke: Invoke, embedded: list[int], pictures: Path, options: list[str], sentence: str
) -> None:
    done = invoke(*options)
    assert (done.code, embedded) == (2, [])
    assert done.err.startswith(f"error: {sentence}")
    assert done.err.count("\n") == 1


def test_a_source_is_read_once_until_it_changes(
    invoke: Invoke, embedded: list[int], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke("colours", "--out", "one")
    with monkeypatch.context() as patch:
        patch.setattr(inspecting, "ingest", lambda *_: pytest.fail("it was read again"))
        assert invoke("colours", "--out", "two").code == 0
    assert (tmp_path / "one" / "findings.csv").read_bytes() == (tmp_path / "two" / "findings.csv").read_bytes()
    assert (tmp_path / "one" / "report.html").read_bytes() == (tmp_path / "two" / "report.html").read_bytes()
    next(pictures.glob("train/red/red-*")).unlink()
    invoke("colours", "--out", "three")
    assert embedded == [3 * EACH, 3 * EACH, 3 * EACH - 1]
    assert len(list((tmp_path / ".secateur" / "tables").iterdir())) == 1


def test_an_audit_is_drawn_filled_in_and_read_back(
    invoke: Invoke, embedded: list[int], pictures: Path, tmp_path: Path
) -> None:
    done = invoke("colours", "--audit", 40, "--out", "out")
    assert done.code == 0
    file = tmp_path / "out" / "audit.csv"
    assert f"{tmp_path / 'out' / 'audit.html'}; to fill in: {file}" in done.out
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == 40
    for row in rows:
        row["wrong"] = "yes" if Path(row["source"]).name.partition("-")[0] != row["given"] else "no"
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    judged = invoke("colours", "--audited", "out/audit.csv", "--out", "out")
    assert "labels    About " in judged.out
    assert "calibrated by 40 samples that a person judged" in judged.out
    again = invoke("colours", "--audit", 40, "--out", "out")
    assert (again.code, "audit must not replace a file that is filled in" in again.err) == (2, True)
    file.write_text("sample_id,wrong\nnobody,yes\n")
    done = invoke("colours", "--audited", "out/audit.csv", "--out", "out")
    assert (done.code, "got 'nobody' in line 2" in done.err) == (2, True)


def test_exports_are_tables_that_a_run_takes(
    invoke: Invoke, embedded: list[int], pictures: Path, tmp_path: Path
) -> None:
    assert invoke("colours", "--export", "corrected", "--correct-above", 0.5, "--out", "out").code == 0
    assert invoke("colours", "--export", "filtered", "--out", "out").code == 0
    corrected, filtered = (open_table(tmp_path / "out" / kind) for kind in ("corrected", "filtered"))
    for table, kept in ((corrected, 3 * EACH), (filtered, 3 * EACH - 3 * 3)):
        assert len(table) == kept
        true = np.array([Path(table.source(i)).name.partition("-")[0] for i in range(kept)])
        given = np.array(table.info.classes)[table.label]
        test_N = table.split == "test"
        assert np.array_equal(true[~test_N], given[~test_N])
        assert (true[test_N] != given[test_N]).sum() == 3  # its labels are the curator's own decision
    assert invoke("out/filtered", "--out", "again").code == 0
    assert embedded[-1] == len(filtered)
    assert len(list((tmp_path / ".secateur" / "tables").iterdir())) == 1  # a table is read where it lies


def test_the_digits_with_their_own_clip(
    invoke: Invoke, digits_folder: Path, clean_labels_file: Path, digits_clip_state: Path,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv(STATE_VARIABLE, str(digits_clip_state))
    done = invoke(digits_folder, "--out", "out", "--fail-above", "5%")
    assert done.code == TOO_MANY
    known = pq.read_table(clean_labels_file).to_pylist()
    classes = open_table(digits_folder).info.classes
    clean = {row["sample_id"]: classes[row["label"]] for row in known}
    findings = pq.read_table(tmp_path / "out" / "findings.parquet").to_pylist()
    findings.sort(key=lambda row: (-row["probability_wrong"], row["margin"]))
    assert {row["split"] for row in findings} == {"train", "validation", "test"}
    assert sum(clean[row["sample_id"]] != row["given"] for row in findings[:50]) >= 45
    assert "embedded" in done.err
