"""Registries elsewhere: over HTTP with a password, over ssh, and a store in S3."""

import importlib.util
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from git_server import serve
from made_outputs import Outputs
from made_registry import publish_version

import secateur
from secateur.errors import InputError
from secateur.records import git as git_module
from secateur.records.git import git
from secateur.records.registry.checkout import check_out, open_version
from secateur.records.registry.repository import open_or_create, opened

NAME = "my-pets/multimodal-0.7/v1"
PASSWORD = "hunter2%2Fodd"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server with an empty repository."""
    git("init", "--quiet", "--bare", "--initial-branch=main", str(tmp_path / "served" / "registry.git"))
    git("config", "http.receivepack", "true", folder=tmp_path / "served" / "registry.git")
    with serve(tmp_path / "served", "ada", "hunter2/odd") as host:
        yield host


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every argument that any command was given."""
    real, seen = subprocess.run, []

    def run(arguments: list[str], **options: Any) -> Any:
        seen.extend(arguments)
        return real(arguments, **options)

    monkeypatch.setattr(git_module.subprocess, "run", run)
    return seen


def test_a_password_is_used_and_never_shown(
    server: str,
    commands: list[str],
    outputs: Outputs,
    workplace: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"http://ada:{PASSWORD}@{server}/registry.git"
    location = open_or_create(url, str(workplace / "store"))
    assert publish_version(location, outputs).name == NAME
    with opened(location) as tree:
        assert git("rev-list", "--count", "HEAD", folder=tree) == "1"  # nothing but the newest state
    with open_version(location, NAME) as version:
        assert check_out(version, tmp_path / "out", "folder")["counts"]["train"] == 8
    assert secateur.load_mask(NAME, registry=url).digest == outputs.digest
    assert "clone" in commands
    assert "push" in commands
    assert not [argument for argument in commands if "hunter2" in argument]
    assert "hunter2" not in caplog.text
    published = git("log", "--all", "--patch", folder=tmp_path / "served" / "registry.git")
    assert "hunter2" not in published


def test_a_wrong_password_is_said_without_it(server: str, workplace: Path) -> None:
    with pytest.raises(InputError, match="registry must be a git repository") as caught:
        open_or_create(f"http://ada:wrong-hunter2@{server}/registry.git", "store")
    assert "hunter2" not in str(caught.value)
    assert server in str(caught.value)


def test_credentials_from_a_mounted_file(
    server: str, outputs: Outputs, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = workplace / "secret"
    secret.write_text(f"http://ada:{PASSWORD}@{server}\n")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "credential.helper")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"store --file={secret}")
    location = open_or_create(f"http://{server}/registry.git", str(workplace / "store"))
    assert publish_version(location, outputs).created
    assert publish_version(location, outputs).created is False


def test_over_ssh_with_a_command_from_the_environment(
    outputs: Outputs, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = workplace / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "$@" >> {workplace}/called\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", f"{ssh} -i /mounted/key")
    monkeypatch.setenv("GIT_SSH_VARIANT", "ssh")
    git("init", "--quiet", "--bare", "--initial-branch=main", "registry.git")
    for location in (f"ssh://git@example.org{workplace}/registry.git", f"git@example.org:{workplace}/registry.git"):
        assert open_or_create(location, str(workplace / "store")) == location
        assert publish_version(location, outputs).name == NAME
    assert "-i /mounted/key" in (workplace / "called").read_text()


def test_a_file_url_is_a_path(workplace: Path, outputs: Outputs) -> None:
    location = open_or_create(f"file://{workplace}/registry.git")
    assert location == str(workplace / "registry.git")
    assert secateur.load_mask(publish_version(location, outputs).name, f"file://{location}").digest == outputs.digest


def test_a_store_without_its_driver_is_said(workplace: Path, outputs: Outputs) -> None:
    location = open_or_create("registry.git", "webhdfs://example.org/store")
    assert importlib.util.find_spec("dvc_webhdfs") is None, "another scheme is needed here"
    with pytest.raises(InputError, match=r"store must take data, got 'webhdfs://example\.org/store'"):
        publish_version(location, outputs)


@pytest.fixture
def bucket(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that speaks S3, with an empty bucket, and what a pod would have in its environment."""
    pytest.importorskip("dvc_s3")
    pytest.importorskip("moto.server")
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "moto.server", "-p0"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        address = next(line.split()[-1] for line in process.stderr if "Running on" in line)
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "in-the-environment")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import boto3

        boto3.client("s3").create_bucket(Bucket="store")
        try:
            yield "s3://store/secateur"
        finally:
            process.kill()


def test_a_store_in_s3(bucket: str, workplace: Path, outputs: Outputs, tmp_path: Path) -> None:
    location = open_or_create("registry.git", bucket)
    assert publish_version(location, outputs).name == NAME
    with open_version(location, NAME) as version:
        assert check_out(version, tmp_path / "out", "folder")["counts"]["train"] == 8
        assert version.published_mask().digest == outputs.digest
    subprocess.run(["git", "clone", "--quiet", location, "copy"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "pull", "--quiet"], cwd="copy", check=True)
    assert secateur.load_mask(workplace / "copy" / "masks" / NAME).digest == outputs.digest
    assert "hunter2" not in git("log", "--all", "--patch", folder=location)
    assert not (workplace / "store").exists()
