"""The embedded data set and its CLIP, made once for all tests."""

import logging
from pathlib import Path

import pytest

from secateur.dataset.sources import IngestConfig, ingest
from secateur.state import STATE_VARIABLE, DurableState
from tests.alerts import listening


def pytest_collection_modifyitems(items):
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
    """A durable state folder with the embedded CLIP in it, fully trained."""
    from secateur.semantics.config import ClipConfig
    from secateur.semantics.digits_clip import embedded_clip

    folder = tmp_path_factory.mktemp("clip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STATE_VARIABLE, str(folder / "state"))
        embedded_clip(ClipConfig(), digits_folder, DurableState(folder / "out"), folder / "clip")
    return folder / "state"
