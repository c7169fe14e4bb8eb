"""What a step keeps for MLflow, and how it gets there."""

import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from secateur.records.places import places
from secateur.records.tracking import finishing, live, runs, sending, spool
from secateur.records.tracking.facts import Point, arm_key, curve_points
from secateur.records.tracking.live import Live, follow
from secateur.records.tracking.spool import Message, SpoolFile, read_messages


@dataclass(frozen=True)
class Config:
    """A pruning's config, but for what does not matter here."""

    method: str = "multimodal"
    keep: float = 0.5
    rate: float = 0.25


CONFIG = asdict(Config())
LOG = logging.getLogger("secateur.training.phases")


def history(epochs: int) -> list[dict[str, Any]]:
    return [
        {"phase": "prune", "epoch": e, "seconds": e + 0.25, "train_loss": 1 / (e + 1), "validation_loss": None}
        for e in range(epochs)
    ]


def tell(handler: Live, seed: int, epochs: int) -> None:
    record = logging.makeLogRecord({"levelno": logging.INFO, "curve": (seed, history(epochs))})
    handler.handle(record)


@pytest.fixture
def run(store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a pipeline run that the environment names; somebody else sends."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("SECATEUR_RUN", "run-1")
    monkeypatch.setenv("SECATEUR_SPOOL", str(tmp_path / "spool"))
    return spool.begin(places(), "a run")


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), max_size=8))
def test_every_epoch_is_told_once_and_in_order(told: list[tuple[int, int]]) -> None:
    handler = Live(None, "prune", CONFIG)
    written: list[Message] = []
    handler.write = written.append  # type: ignore[method-assign]
    lengths: dict[int, int] = {}
    for seed, more in told:
        lengths[seed] = lengths.get(seed, 0) + more
        tell(handler, seed, lengths[seed])
    expected = curve_points({seed: history(length) for seed, length in lengths.items()})
    assert sorted(map(astuple, (p for m in written for p in m.points))) == sorted(map(astuple, expected))
    assert {m.arm for m in written} <= {arm_key(CONFIG)}


def test_what_was_written_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "new" / "step.jsonl")
    messages = [Message("arm", {"rate": "0.5"}, {"a": "b"}, (Point("loss", float(i), i, 0.5),)) for i in range(3)]
    for message in messages:
        file.write(message)
    content = file.path.read_bytes()
    file.path.write_bytes(content[:-5])
    found, offset = read_messages(file.path)
    assert found == [replace(m, points=list(m.points)) for m in messages[:2]]
    file.path.write_bytes(content)
    rest, end = read_messages(file.path, offset)
    assert [m.points[0].step for m in rest] == [2]
    assert end == len(content)


def test_a_line_that_is_no_message_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = SpoolFile(tmp_path / "step.jsonl")
    file.path.write_text('{"arm": 3\n[]\n')
    file.write(Message())
    assert len(read_messages(file.path)[0]) == 1
    assert caplog.text.count("holds a line that is no message") == 2


def test_a_full_disk_ends_the_messages_and_not_the_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = SpoolFile(tmp_path / "step.jsonl")
    file.path.mkdir()  # nothing can be written there
    handler = Live(file, "prune", CONFIG)
    tell(handler, 0, 2)
    tell(handler, 0, 3)
    assert caplog.text.count("cannot be written to") == 1


def test_without_a_server_or_a_run_nobody_is_told(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MLFLOW_TRACKING_URI", "http://127.0.0.1:9"), ("SECATEUR_RUN", "run-1")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert follow("prune", "random", arm=Config()).file is None
    assert list(workplace.iterdir()) == []


def test_a_step_does_not_import_mlflow(run: Path) -> None:
    code = "import sys; from secateur.records.tracking.live import follow; follow('ingest').figures({'train': 3})\n"
    code += "assert not {'mlflow', 'torch', 'dvc'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    (message,) = read_messages(*spool.message_files(run))[0]
    assert [(p.name, p.value) for p in message.points] == [("ingest/train", 3.0)]


def test_arms_are_runs_below_one_run_and_nothing_is_there_twice(run: Path, store: str) -> None:
    logger = logging.getLogger("secateur")
    before, level = list(logger.handlers), logger.level
    try:
        logger.setLevel(logging.INFO)
        for arm in (None, Config(), Config()):  # the second time as after a kill, with all epochs again
            listener = follow("prune" if arm else "warmup", "x", arm=arm)
            LOG.info("an epoch", extra={"curve": (0, history(2))})
            LOG.info("an epoch", extra={"curve": (0, history(3))})
            LOG.info("something else")
            logger.removeHandler(listener)
    finally:
        logger.handlers, level = before, logger.setLevel(level)  # type: ignore[func-returns-value]
    sender = sending.Sender(run)
    sender.send()
    sender.send()
    client = MlflowClient(store, store)
    runs = client.search_runs([sender.runs[""].experiment_id])
    parent, child = sorted(runs, key=lambda r: "mlflow.parentRunId" in r.data.tags)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id == spool.read_target(run).run_id
    assert (parent.info.run_name, child.info.run_name) == ("a run", "multimodal-0.5")
    assert child.data.params == {"method": "multimodal", "keep": "0.5", "rate": "0.25"}
    for found, name in ((parent, "warmup/train_loss/seed-0"), (child, "train_loss/seed-0")):
        points = client.get_metric_history(found.info.run_id, name)
        assert [(p.step, p.value) for p in points] == [(i + 1, 1 / (i + 1)) for i in range(3)]
        assert [p.timestamp - found.info.start_time for p in points] == [250, 1250, 2250]
    assert spool.waiting(run) == 0


def test_a_sender_that_is_killed_leaves_the_rest_to_the_next(run: Path, store: str) -> None:
    file = SpoolFile(run / "step.jsonl")
    file.write(Message(points=[Point("loss", 1.0, 1, 0.0)]))
    sending.Sender(run).send()
    file.write(Message(points=[Point("loss", 2.0, 2, 0.0)]))
    assert spool.waiting(run) == 1
    (run / spool.SENT_FILE).unlink()  # the worst case: nobody knows what has arrived
    again = sending.Sender(run)
    again.send()
    again.end("KILLED")
    found = again.runs[""]
    assert [m.value for m in found.client.get_metric_history(found.run_id, "loss")] == [1.0, 2.0]
    assert found.client.get_run(found.run_id).info.status == "KILLED"


def test_a_run_that_somebody_else_began_is_not_ended(
    store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    theirs = MlflowClient(store, store).create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs)
    folder = spool.begin(replace(places(), key="run-1", spool=tmp_path))
    SpoolFile(folder / "step.jsonl").write(Message(arm="other-0.5-x", points=[Point("loss", 1.0, 1, 0.0)]))
    sender = sending.Sender(folder)
    sender.send()
    sender.end("FINISHED")
    status = {arm: run.client.get_run(run.run_id).info.status for arm, run in sender.runs.items()}
    assert status == {"": "RUNNING", "other-0.5-x": "FINISHED"}
    assert sender.runs[""].run_id == theirs


def test_what_mlflow_refuses_holds_nothing_up(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = SpoolFile(run / "step.jsonl")
    file.write(Message(params={"rate": "1"}))
    sender = sending.Sender(run)
    sender.send()
    file.write(Message(params={"rate": "2"}, points=[Point("lost", 0.0, 1, 0.0)]))  # a parameter never changes
    file.write(Message(arm="other-0.5-x", points=[Point("kept", 0.0, 1, 0.0)]))
    sender.send()
    assert "MLflow refuses what run" in caplog.text
    assert spool.waiting(run) == 0
    assert sender.runs["other-0.5-x"].client.get_metric_history(sender.runs["other-0.5-x"].run_id, "kept")


def test_only_one_process_sends(run: Path) -> None:
    with spool.sole_sender(run) as first, spool.sole_sender(run) as second:
        assert (first, second) == (True, False)
    with spool.sole_sender(run) as third:
        assert third


def test_what_a_pod_leaves_in_a_state_elsewhere_is_found_again(tmp_path: Path, run: Path) -> None:
    SpoolFile(run / "step.jsonl").write(Message(points=[Point("loss", 1.0, 1, 0.0)]))
    uri = "memory://a-bucket/state"
    spool.carry_off(run, uri)
    other = tmp_path / "another pod"
    spool.bring_back(other, uri)
    (found,) = spool.folders(other)
    assert spool.read_target(found).key == "run-1"
    assert read_messages(found / "step.jsonl") == read_messages(run / "step.jsonl")
    spool.bring_back(tmp_path / "a third", uri)  # the other pod may be lost before it has sent anything
    assert spool.folders(tmp_path / "a third") == [tmp_path / "a third" / "run-1"]
    spool.note_run(found, "abc")
    spool.drop_copy(found, uri)
    spool.bring_back(tmp_path / "a fourth", uri)
    assert spool.folders(tmp_path / "a fourth") == []


def test_of_a_state_elsewhere_only_what_was_sent_is_removed(
    tmp_path: Path, run: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"file://{tmp_path / 'bucket'}"
    monkeypatch.setenv("SECATEUR_STATE_URI", uri)
    file = SpoolFile(run / "step.jsonl")
    file.write(Message(points=[Point("loss", 1.0, 1, 0.0)]))
    spool.carry_off(run, uri)
    copy = tmp_path / "bucket" / "spool" / "run-1"
    with monkeypatch.context() as patch:
        patch.setattr(sending, "reached", lambda _: (_ for _ in ()).throw(sending.AwayError("away")))
        assert sending.sync(tmp_path / "here") == (0, [f"1 of run run-1 cannot be sent to {store}: away"])
    assert (copy / "step.jsonl").is_file()
    file.write(Message(points=[Point("loss", 2.0, 2, 0.0)]))
    spool.carry_off(run, uri)  # meanwhile: what is there is no longer what is here
    assert sending.sync(tmp_path / "here") == (1, [])
    assert sorted(p.name for p in copy.iterdir()) == ["step.jsonl", "target.json"]
    spool.forget(tmp_path / "here" / "run-1")
    assert sending.sync(tmp_path / "here") == (2, [])
    assert list(copy.iterdir()) == []


def test_files_that_another_pod_has_sent_meanwhile_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bucket").mkdir()
    gone = str(tmp_path / "bucket" / "spool" / "run-1" / "target.json")
    monkeypatch.setattr(LocalFileSystem, "find", lambda *_: [gone])
    spool.bring_back(tmp_path / "here", f"file://{tmp_path / 'bucket'}")
    assert [p for p in (tmp_path / "here").rglob("*") if p.is_file()] == []


def test_a_run_that_is_just_starting_is_not_forgotten_by_another(run: Path) -> None:
    assert sending.send_folder(run)
    assert (run / spool.TARGET_FILE).is_file()
    begun = time.time() - 2 * sending.QUIET
    os.utime(run / spool.TARGET_FILE, (begun, begun))
    assert sending.send_folder(run)
    assert not run.exists()


def test_a_folder_that_its_own_sender_has_just_removed_is_passed_over(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "spool" / "gone"
    monkeypatch.setattr(spool, "folders", lambda _: [gone])
    sending.send_leftovers(run)
    assert sending.sync(tmp_path / "spool") == (0, [])
    with spool.sole_sender(gone) as alone:
        assert not alone


def test_what_waits_in_several_spools_is_sent_once(tmp_path: Path, run: Path) -> None:
    SpoolFile(run / "step.jsonl").write(Message(points=[Point("loss", 1.0, 1, 0.0)]))
    assert sending.sync(tmp_path / "empty", run.parent, run.parent) == (1, [])


def test_no_password_is_told(run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(*_: Any) -> None:
        raise MlflowException("API request to https://ada:hunter2@example.org failed, https://t0ken@example.org too")

    monkeypatch.setattr(runs, "open_run", refuse)
    _, problems = sending.sync(run.parent)
    assert problems[0].endswith("API request to https://example.org failed, https://example.org too")
    assert finishing.open_quietly() == (None, None)
    assert "https://example.org failed" in caplog.text
    assert "hunter2" not in caplog.text
    assert "t0ken" not in caplog.text


def test_no_password_is_kept(monkeypatch: pytest.MonkeyPatch, workplace: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ada:hunter2@example.org")
    monkeypatch.setenv("SECATEUR_RUN", "../run 1")
    folder = spool.begin(places())
    assert json.loads((folder / spool.TARGET_FILE).read_text())["tracking_uri"] == "https://example.org"
    assert folder == workplace / ".secateur" / "spool" / "..-run-1"


def test_shards_are_told_apart_by_their_number(run: Path) -> None:
    follow("embed", "shard-00003-of-00010.arrow").figures({"pictures": 7, "model": "ViT"}, "shard-00003-of-00010.arrow")
    (message,) = read_messages(*spool.message_files(run))[0]
    assert list(message.points) == [Point("embed/pictures", 7.0, 3, 0.0)]
    logging.getLogger("secateur").handlers = [
        h for h in logging.getLogger("secateur").handlers if not isinstance(h, live.Live)
    ]
