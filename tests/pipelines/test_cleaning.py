import json
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.errors import InputError
from secateur.pipelines.cleaning import DAY, Run, chosen, clean, find_runs, read_age, remove, size_of
from secateur.pipelines.local import Home
from secateur.state import STATE_VARIABLE, DurableState

NOW = time.time()


def write_run(home: Home, name: str, days: float, version: str | None = "pets/v1") -> Path:
    folder = home.runs / name
    (folder / "prune").mkdir(parents=True)
    (folder / "prune" / "model").write_bytes(b"m" * 1000)
    if version is not None:
        (folder / "outputs.json").write_text(json.dumps({"version": version}))
    for file in [*folder.rglob("*"), folder]:
        os.utime(file, (NOW - days * DAY, NOW - days * DAY))
    home.cache.mkdir(exist_ok=True)
    note = {"model": {"__kfp_artifact__": True, "uri": str(folder / "prune" / "model")}}
    (home.cache / f"{name}.json").write_text(json.dumps(note))
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    for name, days in (("a", 40.0), ("b", 20.0), ("b-2", 3.0), ("c", 0.0)):
        write_run(made, name, days)
    write_run(made, "d", 0.1, None)  # still going on
    write_run(made, "e", 40.0, None)  # failed long ago
    for name in ("registry.git", "store", "mlartifacts"):
        (made.folder / name).mkdir()
        (made.folder / name / "kept").write_text("kept")
    return made


def finish(home: Home) -> None:
    """End the run that is going on."""
    (home.runs / "d" / "outputs.json").write_text("{}")


runs_and_rules = st.tuples(
    st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=8),
    st.none() | st.floats(0, 100),
    st.none() | st.integers(0, 9),
)


@given(runs_and_rules)
def test_only_old_and_superfluous_runs_that_are_done_go(
    given_: tuple[list[tuple[float, bool]], float | None, int | None],
) -> None:
    entries, older, keep = given_
    runs = [Run(Path(str(i)), age * DAY, 1, "", busy) for i, (age, busy) in enumerate(entries)]
    limit = None if older is None else older * DAY
    going = chosen(runs, limit, keep)
    if older is None and keep is None:
        assert going == []
    for i, run in enumerate(runs):
        wanted = not run.busy and (limit is None or run.age > limit) and i >= (keep or 0)
        assert (run in going) == (wanted and not (older is None and keep is None))


def test_a_run_is_known_by_its_state(home: Home) -> None:
    runs = {run.folder.name: run for run in find_runs(home, NOW)}
    assert list(runs) == ["e", "d", "c", "b-2", "b", "a"]
    assert [name for name, run in runs.items() if run.busy] == ["d"]
    assert (runs["b"].version, runs["d"].version) == ("pets/v1", "")
    assert runs["a"].age == pytest.approx(40 * DAY, abs=60)
    assert runs["a"].size == size_of(runs["a"].folder) > 1000
    (home.spool / "a").mkdir(parents=True)
    assert next(run for run in find_runs(home, NOW) if run.folder.name == "a").busy


def test_nothing_is_removed_unless_told_so(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    finish(home)
    before = sorted(home.folder.rglob("*"))
    clean(home.folder)
    assert "would remove" not in capsys.readouterr().out
    clean(home.folder, older_than="10d")
    assert "with --yes, this would remove 3 of 6 runs" in capsys.readouterr().out
    assert sorted(home.folder.rglob("*")) == before


def test_old_runs_go_with_the_caches_notes_and_nothing_else(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    finish(home)
    clean(home.folder, older_than="10d", keep_last=2, yes=True)
    assert "removed 2 of 6 runs" in capsys.readouterr().out
    assert sorted(f.name for f in home.runs.iterdir()) == ["b-2", "c", "d", "e"]
    assert sorted(f.stem for f in home.cache.iterdir()) == ["b-2", "c", "d", "e"]
    assert all((home.folder / name / "kept").exists() for name in ("registry.git", "store", "mlartifacts"))


def test_what_a_run_that_stays_names_stays_too(home: Home) -> None:
    for name, older in (("c", "b"), ("b", "a")):
        outputs = {"version": "pets/v2", "mask": str(home.runs / older / "prune" / "mask"), "seeds": [1]}
        (home.runs / name / "outputs.json").write_text(json.dumps(outputs))
        os.utime(home.runs / name / "outputs.json", (NOW - 20 * DAY, NOW - 20 * DAY))
    runs = find_runs(home, NOW)
    assert {run.folder.name: set(run.uses) for run in runs if run.uses} == {"c": {"b"}, "b": {"a"}}
    assert [run.folder.name for run in chosen(runs, 10 * DAY, None)] == ["e"]


def test_nothing_goes_while_a_run_may_use_it(home: Home) -> None:
    before = sorted(home.folder.rglob("*"))
    for yes in (False, True):
        with pytest.raises(InputError, match="home must be without a run that may still use what older ones made, got"):
            clean(home.folder, older_than="10d", yes=yes)
    assert sorted(home.folder.rglob("*")) == before


def test_state_that_nobody_used_for_long_goes(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(home)
    state = home.folder / "state"
    monkeypatch.setenv(STATE_VARIABLE, str(state))
    durable, old = DurableState(home.folder), NOW - 20 * DAY
    names = ("checkpoints/a/last.pt", "embeddings/b/texts/1.npy", "embeddings/c/texts/1.npy", "small/d/w", "small/e/w")
    for name in (*names, "spool/run-1/prune.jsonl", "checkpoints/a/new.pt"):
        durable.write(name, b"kept")
    for file in [*state.rglob("*"), state]:
        if file.name != "new.pt":  # of an entry the newest file counts
            os.utime(file, (old, old))
    os.utime(state / "checkpoints" / "a", (old, old))
    assert durable.read(names[1]) == b"kept"  # which is use
    assert durable.fetch("small/d", home.folder / "brought", ("w",))
    before = sorted(state.rglob("*"))
    clean(home.folder, keep_last=9, yes=True)
    clean(home.folder, older_than="30d", yes=True)
    clean(home.folder, older_than="10d")
    assert sorted(state.rglob("*")) == before
    said = capsys.readouterr().out
    assert re.search(r"embeddings/c +20\.0 +0\.0 MB", said)
    assert said.endswith("and 2 of 5 entries of the state, 0.0 MB\n")
    clean(home.folder, older_than="10d", yes=True)
    there = {"/".join(file.relative_to(state).parts) for file in state.rglob("*") if file.is_file()}
    assert there == {*names[:2], names[3], "checkpoints/a/new.pt", "spool/run-1/prune.jsonl"}


def test_no_state_goes_while_a_run_may_use_it(home: Home) -> None:
    used = home.folder / "state" / "embeddings" / "a"
    used.mkdir(parents=True)
    os.utime(used, (NOW - 60 * DAY, NOW - 60 * DAY))
    with pytest.raises(InputError, match="home must be without a run that may still use"):
        clean(home.folder, older_than="50d", yes=True)  # no run is as old as that
    assert used.is_dir()


def test_files_may_vanish(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (home.runs / "a" / "gone").symlink_to("nowhere")
    lstat = Path.lstat

    def vanishing(path: Path) -> os.stat_result:
        if path.name == "model":
            path.unlink(missing_ok=True)
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", vanishing)
    assert [run.size for run in find_runs(home, NOW) if run.folder.name == "e"] == [0]


def test_a_run_whose_name_begins_alike_is_another(home: Home) -> None:
    remove(home, [run for run in find_runs(home, NOW) if run.folder.name == "b"])
    assert (home.cache / "b-2.json").exists()
    assert not (home.cache / "b.json").exists()


def test_wrong_input_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="older_than must be a number with h, d or w, as 30d, got '30'"):
        read_age("30")
    with pytest.raises(InputError, match="home must be a folder with runs, got"):
        clean(tmp_path / "none")
