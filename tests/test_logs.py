import subprocess
import sys

import pytest

from secateur.logs import LINE


def printed(code: str) -> tuple[int, list[str]]:
    """What a process prints that configures its log and runs some code; the clock is cut off."""
    head = "import logging\nfrom secateur import logs\nfrom secateur.errors import InputError\n"
    head += "log = logging.getLogger('secateur.room')\n"
    done = subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, [line.split(" ", 1)[1] for line in done.stdout.splitlines()]


def test_a_step_that_goes_well() -> None:
    code, lines = printed(
        "logging.basicConfig(level=logging.INFO)\nlogs.configure('prune', 'full')\n"
        "log.info('epoch %d', 1)\nlog.debug('no')\nlog.warning('two\\nlines')"
    )
    assert code == 0
    assert lines[:-1] == [
        "secateur [prune full] started",
        "secateur [prune full]: epoch 1",
        "secateur [prune full]: warning: two",
        "secateur [prune full]: warning: lines",
    ]
    said = LINE.search(lines[-1])
    assert said
    assert (said["step"], said["part"], said["event"]) == ("prune", "full", "done")
    assert 5 < float(lines[-1].split()[-2]) < 500


def test_a_step_that_refuses_its_input() -> None:
    code, lines = printed("logs.configure('ingest')\nraise InputError('keep must be\\nless')")
    assert code == 1
    assert lines[1] == "secateur [ingest] failed: keep must be less"
    assert lines[2] == "secateur [ingest] | Traceback (most recent call last):"
    assert lines[-1] == "secateur [ingest] | less"
    assert not any("done" in line for line in lines)


def test_another_error_is_named() -> None:
    _, lines = printed("logs.configure('ingest')\n{}['mask']")
    assert lines[1] == "secateur [ingest] failed: KeyError: 'mask'"


@pytest.mark.parametrize(
    ("line", "group", "text"),
    [
        ("    07:25:03 secateur [embed shard-0.arrow] started", "event", "started"),
        ("secateur [prune full] done, peak memory 812 MB", "event", "done"),
        ("secateur [prune full]: started all over", "text", "started all over"),
        ("secateur [prune full] failed: it: broke", "reason", "it: broke"),
        ("secateur [prune full] |   File x", "trace", "  File x"),
    ],
)
def test_lines_are_told_apart(line: str, group: str, text: str) -> None:
    said = LINE.search(line)
    assert said
    assert {k: v for k, v in said.groupdict().items() if v is not None and k not in ("step", "part")} == {group: text}
