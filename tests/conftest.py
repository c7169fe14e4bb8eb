"""The embedded data set and its CLIP, made once for all tests; and the order of these."""

import fcntl
import gc
import logging
import os
import shutil
from pathlib import Path

import pytest

from secateur.dataset.sources import IngestConfig, ingest
from secateur.files import replacing
from secateur.state import STATE_VARIABLE, DurableState
from tests.alerts import listening

# A worker does whole files: those that take longest begin first, so that none is left alone with one at the end.
SLOWEST = ("whole_run", "away", "processes", "embed", "publishing", "local", "runs")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    gc.disable()  # it looks through the modules of PyTorch and MLflow again and again while they are imported
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items):
    first = {f"test_{name}": place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: first.get(item.path.stem, len(first)))
    gpu = [item for item in items if "gpu" in item.keywords]
    if gpu:
        import torch

        if not torch.cuda.is_available():
            for item in gpu:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def no_durable_state(monkeypatch):
    """A test that wants a state names its own; nothing comes in from the environment."""
    monkeypatch.delenv(STATE_VARIABLE, raising=False)


@pytest.fixture(autouse=True)
def plain_logs():
    """Steps and other packages set up the logs of their process; the next test is to find them as they were."""
    logging.disable(logging.NOTSET)
    for name, logger in logging.root.manager.loggerDict.items():
        if name.partition(".")[0] == "secateur" and isinstance(logger, logging.Logger):
            logger.disabled, logger.propagate = False, True
    logging.root.setLevel(logging.WARNING)
    logger = logging.getLogger("secateur")
    logger.handlers = []
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def alerts():
    """A server that takes alerts."""
    with listening() as state:
        yield state


@pytest.fixture(scope="session")
def ingested_digits(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    ingest(IngestConfig(), folder / "data", folder / "clean_labels.parquet")
    return folder


@pytest.fixture(scope="session")
def digits_folder(ingested_digits) -> Path:
    """The digits as a table."""
    return ingested_digits / "data"


@pytest.fixture(scope="session")
def clean_labels_file(ingested_digits) -> Path:
    """The true labels of the digits."""
    return ingested_digits / "clean_labels.parquet"


@pytest.fixture(scope="session")
def digits_clip_state(digits_folder, tmp_path_factory) -> Path:
    """A durable state folder with the embedded CLIP in it, fully trained, by one of the processes that test."""
    from secateur.semantics.config import ClipConfig
    from secateur.semantics.digits_clip import embedded_clip

    base, folder = tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("clip")
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "digits-clip"
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            with pytest.MonkeyPatch.context() as patch, replacing(shared) as state:
                patch.setenv(STATE_VARIABLE, str(state))
                embedded_clip(ClipConfig(), digits_folder, DurableState(folder / "out"), folder / "clip")
    return shutil.copytree(shared, folder / "state")
