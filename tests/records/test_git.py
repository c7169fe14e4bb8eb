from pathlib import Path

import pytest

from secateur.errors import InputError
from secateur.records.git import GitError, author, git, hide_password, without_credentials


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


@pytest.mark.parametrize("secret", ["hunter2", "hun%2Fter2", "p@hunter2", ""])
def test_a_password_goes_into_a_file_of_ones_own(tmp_path: Path, secret: str) -> None:
    url = f"https://ada:{secret}@example.org:8080/r.git"
    assert without_credentials(f"no access to {url}") == "no access to https://example.org:8080/r.git"
    clean, settings = hide_password(url, tmp_path)
    assert clean == "https://example.org:8080/r.git"
    assert settings == (f"credential.helper=store --file={tmp_path}/credentials",)
    assert (tmp_path / "credentials").read_text() == f"https://ada:{secret}@example.org:8080\n"
    assert (tmp_path / "credentials").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "place", ["/srv/r.git", "git@example.org:r.git", "ssh://git@example.org/r", "https://ada@x.org/r"]
)
def test_a_place_without_a_password_stays_as_it_is(tmp_path: Path, place: str) -> None:
    assert hide_password(place, tmp_path) == (place, ())
    assert list(tmp_path.iterdir()) == []
