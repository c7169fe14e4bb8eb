import logging
import os

import numpy as np
import pytest
import torch

from secateur.semantics import embed, encoding, hardware
from secateur.semantics.config import ClipConfig


def test_progress_says_how_fast_and_how_long(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    now = [100.0]
    monkeypatch.setattr(encoding.time, "monotonic", lambda: now[0])
    progress = encoding.Progress(1000)
    for seconds, pictures in [(4, 100), (8, 100), (2, 200), (26, 600)]:
        now[0] += seconds
        progress.add(pictures)
    assert caplog.messages == [
        "embedded 200 of 1000 new pictures, 17 pictures/s, 48 s left",
        "embedded 1000 of 1000 new pictures, 25 pictures/s",
    ]


def test_a_chunk_ends_with_enough_pictures_or_after_a_minute(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(embed.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(embed, "CHUNK_PICTURES", 10)

    def batches():
        for number, seconds in enumerate([1, 1, 1, 61, 1, 1]):
            now[0] += seconds
            yield np.full((4, 2), number, dtype=np.float16)

    chunks = list(embed.in_chunks(batches()))
    assert [len(chunk_BD) for chunk_BD in chunks] == [12, 4, 8]
    assert np.concatenate(chunks)[:, 0].tolist() == np.repeat(np.arange(6), 4).tolist()


@pytest.mark.parametrize("count", [0, 1, 4])
def test_one_behind_asks_for_the_next_before_it_gives_the_last(count):
    asked = []

    def vectors():
        for number in range(count):
            asked.append(number)
            yield torch.full((1,), float(number))

    given = []
    for vector_B in encoding.one_behind(vectors()):
        given.append(int(vector_B))
        assert asked[-1] == min(given[-1] + 1, count - 1)
    assert given == asked == list(range(count))


def test_what_is_not_set_is_as_the_hardware_has_it(monkeypatch):
    monkeypatch.setattr(hardware, "cores", lambda: 7)
    for device, precision in (("cpu", "fp32"), ("cuda", "fp16")):
        monkeypatch.setattr(hardware, "device_type", lambda device=device: device)
        assert hardware.precision_of(ClipConfig()) == precision
        assert hardware.batch_of(ClipConfig()) == hardware.BATCH[device]
    assert hardware.workers_of(ClipConfig()) == 7
    set_by_hand = ClipConfig(embed_batch=3, embed_workers=2, embed_precision="bf16")
    assert (hardware.batch_of(set_by_hand), hardware.workers_of(set_by_hand)) == (3, 2)
    assert hardware.precision_of(set_by_hand) == "bf16"


def test_no_more_cores_than_this_process_may_use():
    assert 1 <= hardware.cores() <= (os.cpu_count() or 1)
