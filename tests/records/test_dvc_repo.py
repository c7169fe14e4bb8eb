import getpass
import os
from unittest.mock import Mock

import pytest

from secateur.records.dvc_repo import name_user


def test_a_user_id_without_a_name_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOGNAME", "")  # so that what is set below is undone
    monkeypatch.setattr("pwd.getpwuid", Mock(side_effect=KeyError("uid not found")))
    name_user()
    assert getpass.getuser() == f"uid-{os.getuid()}"
