"""The README's code, run as it stands there."""

import re
from pathlib import Path

import pytest

from secateur.pruning import methods

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_there_is_code():
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_code(code, tmp_path, monkeypatch, digits_clip_state):
    assert len([line for line in code.splitlines() if line.strip()]) < (50 if "(Method)" in code else 15)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))  # one of the blocks adds to it
    monkeypatch.setenv("SECATEUR_STATE_URI", str(digits_clip_state))
    exec(compile(code, str(README), "exec"), {"__name__": "readme"})
