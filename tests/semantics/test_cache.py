import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.semantics.cache import VectorCache
from secateur.state import STATE_VARIABLE, DurableState


def vector_of(number: int) -> np.ndarray:
    return np.array([number, -number, 1], dtype=np.float16)


def found(cache: VectorCache, ids: list[str]) -> dict[str, np.ndarray]:
    made: dict[str, np.ndarray] = {}
    for position_B, vector_BD in cache.find(ids):
        assert len(position_B) == len(vector_BD)
        for place, vector_D in zip(position_B, vector_BD, strict=True):
            assert ids[place] not in made
            made[ids[place]] = vector_D
    return made


@pytest.fixture
def cache(tmp_path, monkeypatch) -> VectorCache:
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path))
    return VectorCache(DurableState(tmp_path), "vectors")


numbers = st.lists(st.integers(0, 40), max_size=12, unique=True)


@settings(deadline=None)
@given(st.lists(numbers.filter(len), max_size=5), numbers)
def test_it_gives_what_was_kept_each_once(tmp_path_factory, kept, wanted):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("state")
        patch.setenv(STATE_VARIABLE, str(folder))
        cache = VectorCache(DurableState(folder), "vectors")
    for chunk in kept:
        cache.keep([str(n) for n in chunk], np.stack([vector_of(n) for n in chunk]))
    made = found(cache, [str(n) for n in wanted])
    assert set(made) == {str(n) for n in wanted} & {str(n) for chunk in kept for n in chunk}
    assert all((vector_D == vector_of(int(name))).all() for name, vector_D in made.items())


def test_it_keeps_the_type_and_every_kind_of_id(cache):
    ids = ["a photo of a cat.", "雪豹\n", 'a "quoted" one', ""]
    vector_BD = np.random.default_rng(0).random((4, 5), dtype=np.float32)
    cache.keep(ids, vector_BD)
    made = found(cache, ids[::-1])
    assert np.stack([made[i] for i in ids]).dtype == np.float32
    assert (np.stack([made[i] for i in ids]) == vector_BD).all()


def test_what_is_not_there_is_not_found(cache):
    assert found(cache, ["1"]) == {}


def test_many_at_once_do_not_disturb_each_other(cache):
    def work(start: int) -> None:
        chunk = [n % 50 for n in range(start, start + 20)]
        cache.keep([str(n) for n in chunk], np.stack([vector_of(n) for n in chunk]))
        assert len(found(cache, [str(n) for n in chunk])) == 20

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [0, 0, 0, 10, 20, 30, 40, 45] * 4))
    made = found(cache, [str(n) for n in range(60)])
    assert {int(name) for name in made} == set(range(50))
    assert all((vector_D == vector_of(int(name))).all() for name, vector_D in made.items())


@settings(deadline=None)
@given(st.data())
def test_one_damaged_byte_anywhere_is_seen(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STATE_VARIABLE, str(folder))
        cache = VectorCache(DurableState(folder), "vectors")
    cache.keep(["1", "2"], np.stack([vector_of(1), vector_of(2)]))
    cache.keep(["3"], vector_of(3)[None])
    file = data.draw(st.sampled_from(sorted((folder / "vectors").iterdir())))
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    made = found(cache, ["1", "2", "3"])
    assert set(made) in ({"1", "2"}, {"3"})
    assert all((vector_D == vector_of(int(name))).all() for name, vector_D in made.items())


def test_a_lost_file_is_named_and_another_copy_serves(cache, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    cache.keep(["1", "2"], np.stack([vector_of(1), vector_of(2)]))
    lost = next((tmp_path / "vectors").glob("*.npy"))
    cache.keep(["2", "3"], np.stack([vector_of(2), vector_of(3)]))
    lost.unlink()
    assert set(found(cache, ["1", "2", "3"])) == {"2", "3"}
    assert f"vectors/{lost.name} in the durable state is not there: what it held is embedded again" in caplog.text
    caplog.clear()
    assert set(found(cache, ["1", "2", "3"])) == {"2", "3"}
    assert caplog.text == ""
