from pathlib import Path

import pytest

from secateur.errors import InputError
from secateur.records.git import GitError, author, git


def test_failure_tells_what_git_said_without_passwords(workplace: Path) -> None:
    with pytest.raises(GitError, match="nowhere") as caught:
        git("ls-remote", "https://ada:secret@localhost:1/nowhere.git")
    assert "secret" not in str(caught.value)


def test_git_missing_is_said_in_a_sentence(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(workplace))
    with pytest.raises(InputError, match="git must be installed"):
        git("--version")


def test_a_surrounding_git_command_does_not_lead_astray(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git("init", "--quiet", "here")
    monkeypatch.setenv("GIT_DIR", str(workplace / "elsewhere"))
    assert Path(git("rev-parse", "--absolute-git-dir", folder="here")) == (workplace / "here" / ".git").resolve()


def test_an_author_is_named_only_where_none_is_configured(workplace: Path) -> None:
    git("init", "--quiet", "here")
    assert author("here") == ("-c", "user.name=secateur", "-c", "user.email=secateur@localhost")
    git("config", "user.name", "Ada", folder="here")
    git(*author("here"), "commit", "--quiet", "--allow-empty", "--message=x", folder="here")
    assert git("log", "-1", "--format=%an <%ae>", folder="here") == "Ada <secateur@localhost>"
