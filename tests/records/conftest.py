"""Outputs of small pipeline runs, an MLflow store that is made once, and a working directory of one's own."""

import os
import shutil
import warnings
from pathlib import Path

import pytest
from made_outputs import Outputs, write_outputs

from secateur.records.publishing import PublishConfig, Published, publish

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow's about its own type hints and relations, while it is imported
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    import secateur.records.tracking.models  # noqa: F401
    from secateur.records.tracking.runs import open_client


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # DVC's dependency graph calls a deprecated property of pygtrie.
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("ignore:_NoneStep.value will soon:DeprecationWarning"))


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    return write_outputs(tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="session")
def other_outputs(tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    return write_outputs(tmp_path_factory.mktemp("other"), kept_first=6)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables, which take seconds to make."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    open_client(f"sqlite:///{file}")
    return file


def enter_workplace(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """A working directory of one's own, without settings, configuration of git, or an author."""
    for name in [n for n in os.environ if n.startswith(("MLFLOW_TRACKING", "MLFLOW_RUN", "MLFLOW_EXP", "SECATEUR_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(folder / "dvc-site"))
    work = folder / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter_workplace(monkeypatch, tmp_path)


def place_store(empty_store: Path, work: Path) -> str:
    """Make the working directory's default MLflow store; its URI."""
    file = work / ".secateur" / "mlflow.db"
    file.parent.mkdir()
    shutil.copyfile(empty_store, file)
    return f"sqlite:///{file}"


@pytest.fixture
def store(workplace: Path, empty_store: Path) -> str:
    return place_store(empty_store, workplace)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, outputs: Outputs, empty_store: Path) -> tuple[Path, Published]:
    """One real publication, with its working directory."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        work = enter_workplace(monkeypatch, tmp_path_factory.mktemp("published"))
        place_store(empty_store, work)
        made = publish(PublishConfig(), **outputs.files)
    return work, made
