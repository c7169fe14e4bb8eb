"""Pretrained weights from the model hub, or from its local cache without any network."""

import difflib
import logging
import os
import threading
from importlib.util import find_spec
from pathlib import Path

import open_clip
from huggingface_hub import constants, get_session, try_to_load_from_cache
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

from secateur.errors import InputError

log = logging.getLogger(__name__)

PROBE_SECONDS = 5.0
LOCAL_FILE = "give a local file by --checkpoint (and --clip-config for a model of your own)"


def require_model(clip: str) -> None:
    """Check that open_clip knows a model, and can read its texts here.

    Raises:
        InputError: It does not, or would need a package that is not installed.
    """
    known = open_clip.list_models()
    if clip not in known:
        near = ", ".join(difflib.get_close_matches(clip, known, 3, 0.5) or ["ViT-B-32"])
        raise InputError(
            f"clip must be a model that open_clip {open_clip.__version__} knows, such as {near}, got {clip!r}"
        )
    text = open_clip.get_model_config(clip)["text_cfg"]
    if (text.get("hf_tokenizer_name") or text.get("hf_model_name")) and find_spec("transformers") is None:
        raise InputError(f"clip must be a model that does without the package transformers, got {clip!r}: install it")


def find_pretrained(clip: str, pretrained: str) -> Path:
    """The file with the weights of a model and tag, downloaded if it is not in the local cache.

    Args:
        clip: An open_clip model name.
        pretrained: One of its tags.

    Raises:
        InputError: An unknown model or tag, no tag, or a hub that cannot be reached.
    """
    require_model(clip)
    tags = open_clip.list_pretrained_tags_by_model(clip)
    if not tags:
        raise InputError(f"clip must be a model with weights on the hub, got {clip!r}, which has none: {LOCAL_FILE}")
    settings = open_clip.get_pretrained_cfg(clip, pretrained)
    if not settings:
        raise InputError(f"pretrained must be one of {', '.join(tags)} for {clip}, got {pretrained!r}")
    repository, filename = os.path.split(settings["hf_hub"])
    found = find_cached(repository, filename)
    if found:
        return found
    require_hub(f"{clip} {pretrained}")
    log.info("downloading the weights of %s %s from %s", clip, pretrained, constants.ENDPOINT)
    try:
        return Path(open_clip.download_pretrained(settings))
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"pretrained must be weights that can be downloaded, got {pretrained!r} of {clip}, "
            f"which {constants.ENDPOINT} did not deliver ({error}): {LOCAL_FILE}"
        ) from error


def find_cached(repository: str, filename: str) -> Path | None:
    """The file in the local cache that open_clip would choose, or None."""
    filename = filename or HF_WEIGHTS_NAME
    safe = HF_SAFE_WEIGHTS_NAME if filename == HF_WEIGHTS_NAME else str(Path(filename).with_suffix(".safetensors"))
    for name in (safe, filename):
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    return None


def require_hub(wanted: str) -> None:
    """Check within 5 seconds that the hub answers; open_clip itself would go on trying for most of a minute.

    Args:
        wanted: What is to be downloaded.

    Raises:
        InputError: It does not.
    """
    answers: list[int] = []

    def knock() -> None:
        try:
            answers.append(get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS).status_code)
        except Exception as error:  # whatever the client in use calls it, there was no answer
            log.debug("no answer from %s: %s", constants.ENDPOINT, error)

    # A thread of its own, since no timeout covers the look-up of a name; a daemon, so that the step can end without it.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    if not answers or answers[0] >= 500:
        raise InputError(
            f"the weights of {wanted} are not here, and {constants.ENDPOINT} cannot be reached: {LOCAL_FILE}"
        )
