import io
import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from secateur.dataset import open_table
from secateur.dataset.images import encode_bmp
from secateur.dataset.table import Row, write_table
from secateur.errors import InputError
from secateur.files import read_json, write_json
from secateur.semantics import clip as clip_module
from secateur.semantics.config import ClipConfig
from secateur.semantics.embed import embed_shard, open_embeddings
from secateur.state import STATE_VARIABLE
from tests.semantics.conftest import MODEL

CLASSES = ("red_fox", "blue_whale", "lynx")
PROMPTS = ("a photo of a {}.", "{}, seen", "the {}")
ROWS = 24


def picture(index: int) -> bytes:
    random = np.random.default_rng(index)
    pixels = random.integers(0, 256, (16 + index % 100, 16 + 2 * index % 9, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def make_rows() -> list[Row]:
    splits = ["train", "train", "train", "validation", "test", "reference"]
    return [Row(picture(i), i % 3, splits[i % len(splits)], f"{i}.png") for i in range(ROWS)]


@pytest.fixture
def table_folder(tmp_path):
    write_table(tmp_path / "data", make_rows(), name="animals", classes=CLASSES, prompts=PROMPTS, shards=2)
    return tmp_path / "data"


@pytest.fixture
def embed_all(table_folder, tmp_path, tiny_clip):
    """Embed every shard, and say where."""

    def embed(config: ClipConfig = tiny_clip.config, name: str = "out"):
        shards = open_table(table_folder).info.shards
        folders = [tmp_path / name / str(number) for number in range(len(shards))]
        figures = [embed_shard(table_folder, s, config, f) for s, f in zip(shards, folders, strict=True)]
        return folders, figures

    return embed


def encode_one_by_one(model, table):
    """The embeddings, computed by open_clip alone in the plainest way."""
    preprocess = open_clip.image_transform((16, 16), is_train=False)
    tokenizer = open_clip.SimpleTokenizer(context_length=12)
    images, texts = [], []
    with torch.no_grad():
        for index in range(len(table)):
            pixels = preprocess(Image.open(io.BytesIO(table.image(index))))
            images.append(model.encode_image(pixels[None], normalize=True)[0])
        for name in ("red fox", "blue whale", "lynx"):
            written = [f"a photo of a {name}.", f"{name}, seen", f"the {name}"]
            mean = model.encode_text(tokenizer(written), normalize=True).mean(0)
            texts.append(mean / mean.norm())
    return torch.stack(images).numpy(), torch.stack(texts).numpy()


def test_embeddings_are_those_of_open_clip(embed_all, table_folder, tiny_clip):
    folders, figures = embed_all()
    train = open_table(table_folder).part("train")
    expected_ND, text_CD = encode_one_by_one(tiny_clip.model, train)
    embeddings = open_embeddings(folders[::-1], train)
    assert embeddings.image_ND.dtype == embeddings.text_CD.dtype == np.float32
    np.testing.assert_allclose(embeddings.image_ND, expected_ND, atol=2e-3)
    np.testing.assert_allclose(embeddings.text_CD, text_CD, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(embeddings.image_ND, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embeddings.text_CD, axis=1), 1, rtol=1e-6)
    assert sum(f["pictures"] for f in figures) == (open_table(table_folder).split != "reference").sum()


def test_the_files_of_a_shard(embed_all, table_folder, tiny_clip):
    folders, _ = embed_all()
    shard = open_table(table_folder).info.shards[0]
    part = open_table(table_folder, shard)
    written = pa.ipc.open_file(folders[0] / "embeddings.arrow").read_all()
    assert written.schema.field("embedding").type == pa.list_(pa.float16(), 16)
    assert written["sample_id"].to_pylist() == part.sample_id[part.split != "reference"].tolist()
    assert np.load(folders[0] / "texts.npy").shape == (3, 16)
    info = read_json(folders[0] / "embeddings.json")
    assert info["dataset"] == {"name": "animals", "digest": part.info.digest}
    assert (info["model"], info["pretrained"], info["shard"], info["pictures"]) == ("tiny", "", shard, 10)
    assert info["prompts"]["red_fox"] == ["a photo of a red fox.", "red fox, seen", "the red fox"]
    assert (info["embedded"], info["reused"], info["precision"], info["width"]) == (10, 0, "fp32", 16)
    assert not list(folders[0].parent.glob(".*"))


def test_the_whole_table_without_its_reference(embed_all, table_folder):
    folders, _ = embed_all()
    table = open_table(table_folder)
    whole = open_embeddings(folders, table)
    test = open_embeddings(folders, table.part("test"))
    splits = [split for split in table.split if split != "reference"]
    assert len(whole.image_ND) == len(splits) == 20
    assert (whole.image_ND[[split == "test" for split in splits]] == test.image_ND).all()


def test_the_size_of_the_steps_does_not_matter(embed_all, table_folder, tiny_clip):
    table = open_table(table_folder)
    one = open_embeddings(embed_all(replace(tiny_clip.config, embed_batch=3), "three")[0], table)
    other = open_embeddings(embed_all(replace(tiny_clip.config, embed_batch=100), "hundred")[0], table)
    np.testing.assert_allclose(one.image_ND, other.image_ND, atol=2e-3)


def counts(figures) -> list[tuple[int, int]]:
    return [(f["embedded"], f["reused"]) for f in figures]


def refuse(config):
    raise AssertionError("the model was loaded")


def test_nothing_is_embedded_twice(embed_all, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "durable"))
    first, figures = embed_all()
    assert "embedded 10 of 10 new pictures" in caplog.text
    assert counts(figures) == [(10, 0), (10, 0)]
    monkeypatch.setattr(clip_module, "load_clip", refuse)
    second, figures = embed_all(name="again")
    assert "embedded 0, reused 10" in caplog.text
    assert counts(figures) == [(0, 10), (0, 10)]
    assert read_json(second[0] / "embeddings.json")["reused"] == 10
    for one, other in zip(first, second, strict=True):
        for file in ("embeddings.arrow", "texts.npy"):
            assert (one / file).read_bytes() == (other / file).read_bytes()


def test_of_a_grown_data_set_only_what_is_new_is_embedded(tmp_path, tiny_clip, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "durable"))
    rows = [Row(picture(i % 40 + 1000 * (i // 40)), i % 3, "train", f"{i}.png") for i in range(103)]
    for week, (count, shards, expected) in enumerate([(100, 1, [(100, 0)]), (103, 2, [(3, 48), (0, 52)])]):
        # The new ones come first, and the shards are cut elsewhere: positions mean nothing.
        info = write_table(tmp_path / "data", rows[:count][::-1], name="animals", classes=CLASSES, shards=shards)
        folders = [tmp_path / f"{week}-{shard}" for shard in info.shards]
        figures = [
            embed_shard(tmp_path / "data", s, tiny_clip.config, f) for s, f in zip(info.shards, folders, strict=True)
        ]
        assert counts(figures) == expected
    assert "embedded 3, reused 48" in caplog.text
    table = open_table(tmp_path / "data")
    plain_ND, _ = encode_one_by_one(tiny_clip.model, table)
    np.testing.assert_allclose(open_embeddings(folders, table).image_ND, plain_ND, atol=2e-3)


def test_other_weights_or_precision_are_embedded_anew(embed_all, tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "durable"))
    embed_all()
    weights = load_file(tiny_clip.folder / "tiny.safetensors")
    save_file(weights | {"logit_scale": torch.tensor(1.0)}, tmp_path / "other.safetensors")
    for other in ({"checkpoint": str(tmp_path / "other.safetensors")}, {"embed_precision": "bf16"}):
        assert counts(embed_all(replace(tiny_clip.config, **other))[1]) == [(10, 0), (10, 0)]


def test_other_prompts_cost_their_texts_alone(embed_all, table_folder, tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "durable"))
    before, _ = embed_all()
    (tmp_path / "prompts.txt").write_text("the {}\n{} at night\n")
    asked: list[str] = []
    encode_texts = clip_module.Clip.encode_texts
    monkeypatch.setattr(
        clip_module.Clip, "encode_texts", lambda clip, texts: asked.extend(texts) or encode_texts(clip, texts)
    )
    config = replace(tiny_clip.config, prompts=str(tmp_path / "prompts.txt"))
    after, figures = embed_all(config, "after")
    assert counts(figures) == [(0, 10), (0, 10)]
    assert asked == ["red fox at night", "blue whale at night", "lynx at night"]
    table = open_table(table_folder)
    one, other = open_embeddings(before, table), open_embeddings(after, table)
    assert (one.image_ND == other.image_ND).all()
    assert not np.allclose(one.text_CD, other.text_CD, atol=1e-2)
    with pytest.raises(InputError, match="embeddings must be made by one CLIP with the same prompts"):
        open_embeddings([before[0], after[1]], table)


def test_what_is_reused_needs_no_open_clip(embed_all, table_folder, tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "durable"))
    config = replace(tiny_clip.config, embed_precision="fp32")
    embed_all(config)
    code = (
        "import sys; from secateur.semantics.embed import ClipConfig, embed_shard;"
        f"assert embed_shard({str(table_folder)!r}, 'shard-00001-of-00002.arrow', {config!r},"
        f"{str(tmp_path / 'third')!r})['reused'] == 10;"
        "assert not {'torch', 'open_clip', 'torchvision', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def test_the_state_may_be_an_object_store(embed_all, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, "memory://secateur-embed-test")
    assert counts(embed_all()[1]) == [(10, 0), (10, 0)]
    assert counts(embed_all(name="again")[1]) == [(0, 10), (0, 10)]
    left = fsspec.filesystem("memory").find("/secateur-embed-test")
    assert len(left) == 6  # a chunk of texts, and one of pictures from each shard
    assert not [path for path in left if path.endswith(".tmp")]


def test_without_a_durable_place_the_state_is_beside_the_output(embed_all, tmp_path):
    embed_all()
    assert len(list((tmp_path / "out" / "state" / "embeddings").iterdir())) == 1


def chunks(durable: Path, kind: str, ending: str) -> list[Path]:
    return sorted((durable / "embeddings").glob(f"*/{kind}/*{ending}"))


@pytest.mark.parametrize(("kind", "ending"), [("pictures", ".npy"), ("pictures", ".ids.json"), ("texts", ".npy")])
def test_a_cache_damaged_in_one_byte(kind, ending, embed_all, tmp_path, monkeypatch, caplog):
    durable = tmp_path / "durable"
    monkeypatch.setenv(STATE_VARIABLE, str(durable))
    first, _ = embed_all()
    damaged = chunks(durable, kind, ending)[0]
    content = bytearray(damaged.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    damaged.write_bytes(content)
    second, figures = embed_all(name="again")
    expected = [(0, 10), (0, 10)] if kind == "texts" else [(0, 10), (10, 0)]
    assert sorted(counts(figures)) == expected
    assert f"{damaged.name} in the durable state is damaged: what it held is embedded again" in caplog.text
    for one, other in zip(first, second, strict=True):
        assert (one / "embeddings.arrow").read_bytes() == (other / "embeddings.arrow").read_bytes()
        assert (one / "texts.npy").read_bytes() == (other / "texts.npy").read_bytes()
    caplog.clear()
    assert counts(embed_all(name="healed")[1]) == [(0, 10), (0, 10)]
    assert "damaged" not in caplog.text


KILLED = """
import os, signal, sys
from secateur.semantics import cache, embed
embed.CHUNK_PICTURES, keep = 4, cache.VectorCache.keep
def keep_twice_then_die(self, ids, vectors):
    keep(self, ids, vectors)
    kept.append(ids)
    if len(kept) == 3:  # the texts, and two chunks
        os.kill(os.getpid(), signal.SIGKILL)
kept, cache.VectorCache.keep = [], keep_twice_then_die
embed.embed_shard(sys.argv[1], sys.argv[2], embed.ClipConfig(checkpoint=sys.argv[3], clip_config=sys.argv[4],
                  embed_batch=2), sys.argv[5])
"""


def test_a_killed_shard_goes_on_where_it_was(embed_all, table_folder, tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "durable"))
    config, shard = tiny_clip.config, "shard-00000-of-00002.arrow"
    command = [sys.executable, "-c", KILLED, table_folder, shard, config.checkpoint, config.clip_config]
    killed = subprocess.run([*command, tmp_path / "killed"], env=os.environ)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    folders, figures = embed_all()
    assert counts(figures) == [(2, 8), (10, 0)]
    train = open_table(table_folder).part("train")
    plain_ND, _ = encode_one_by_one(tiny_clip.model, train)
    np.testing.assert_allclose(open_embeddings(folders, train).image_ND, plain_ND, atol=2e-3)


def test_a_state_that_cannot_be_written(embed_all, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(InputError, match="SECATEUR_STATE_URI must name a place to write to, got"):
        embed_all()
    assert not (tmp_path / "out" / "0").exists()


MEMORY = """
import sys, threading, time
from secateur.semantics import embed, embeddings
embed.CHUNK_PICTURES = embeddings.ROWS_PER_BATCH = 1024  # fewer than either table has
config = embed.ClipConfig(checkpoint="wide.safetensors", clip_config="wide.json", embed_batch=256, embed_workers=1)
peak = 0
def own_memory():  # the table is mapped: its pages are the kernel's to take back
    return sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(("RssAnon", "RssShmem")))
def watch():
    global peak
    while True:
        peak = max(peak, own_memory())
        time.sleep(0.005)
threading.Thread(target=watch, daemon=True).start()
for folder in sys.argv[1:]:
    embed.embed_shard(folder + "/data", "shard-00000-of-00001.arrow", config, folder + "/out")
    print(peak / 1024)
"""


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    # Vectors so wide that 45,000 of them are 92 MB in half precision; ids, labels and splits may take 20 MB.
    vision = {"layers": 1, "width": 64, "patch_size": 4, "image_size": 4}
    model = {**MODEL, "embed_dim": 1024, "vision_cfg": vision}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        save_file(open_clip.CLIP(**model).state_dict(), tmp_path / "wide.safetensors")
    (tmp_path / "wide.json").write_text(json.dumps(model))
    counts = (5_000, 50_000)
    for count in counts:
        pixels_NHW3 = np.zeros((count, 4, 4, 3), dtype=np.uint8)
        pixels_NHW3[:, 0, 0] = np.arange(count)[:, None] // np.array([1, 256, 65536]) % 256
        header = encode_bmp(pixels_NHW3[0])[:54]
        rows = [Row(header + pixels_HW3.tobytes(), 0, "train", "x") for pixels_HW3 in pixels_NHW3]
        write_table(tmp_path / str(count) / "data", rows, name="dots", classes=["dot"])
    # One process for both, of which the second could hide in what the first gave back 10 MB at most.
    command = [sys.executable, "-c", MEMORY, *map(str, counts)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    peak = [float(line) for line in done.stdout.split()]
    for count in counts:
        assert read_json(tmp_path / str(count) / "out" / "embeddings.json")["embedded"] == count
    assert peak[1] - peak[0] < 45


def test_a_shard_of_reference_pictures_alone(tmp_path, tiny_clip):
    rows = [*make_rows(), *(Row(picture(100 + i), 0, "reference", "x") for i in range(ROWS))]
    info = write_table(tmp_path / "data", rows, name="animals", classes=CLASSES, shards=2)
    folders = [tmp_path / "0", tmp_path / "1"]
    figures = [
        embed_shard(tmp_path / "data", shard, tiny_clip.config, folder)
        for shard, folder in zip(info.shards, folders, strict=True)
    ]
    assert [f["pictures"] for f in figures] == [20, 0]
    assert len(open_embeddings(folders, open_table(tmp_path / "data")).image_ND) == 20


def test_a_picture_that_does_not_decode(tmp_path, tiny_clip):
    rows = make_rows()
    rows[7] = replace(rows[7], image=rows[7].image[:60], source="torn.png")
    info = write_table(tmp_path / "data", rows, name="animals", classes=CLASSES)
    with pytest.raises(InputError, match=r"pictures must decode, got 'torn.png', which does not"):
        embed_shard(tmp_path / "data", info.shards[0], tiny_clip.config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_gives_no_numbers(embed_all, tiny_clip, tmp_path):
    weights = load_file(tiny_clip.folder / "tiny.safetensors")
    save_file(weights | {"visual.proj": weights["visual.proj"] * np.nan}, tmp_path / "nan.safetensors")
    with pytest.raises(InputError, match="clip must give finite embeddings, got others in fp32"):
        embed_all(replace(tiny_clip.config, checkpoint=str(tmp_path / "nan.safetensors")))


def test_an_unknown_shard(table_folder, tiny_clip, tmp_path):
    with pytest.raises(InputError, match="shard must be one of"):
        embed_shard(table_folder, "shard-9", tiny_clip.config, tmp_path / "out")


def test_embeddings_of_another_data_set(embed_all, table_folder):
    folders, _ = embed_all()
    mine = open_table(table_folder).info.digest
    rows = make_rows()
    write_table(table_folder, [*rows[:-1], replace(rows[-1], label=0)], name="animals", classes=CLASSES)
    theirs = open_table(table_folder)
    with pytest.raises(InputError, match=f"of data set {theirs.info.digest[:12]}, got {mine[:12]}"):
        open_embeddings(folders, theirs)


def test_embeddings_that_do_not_cover_the_table_once(embed_all, table_folder, tmp_path):
    folders, _ = embed_all()
    train = open_table(table_folder).part("train")
    with pytest.raises(InputError, match=r"once, got none for 6, as \w+: the shard shard-00001-of-00002.arrow is lost"):
        open_embeddings(folders[:1], train)
    with pytest.raises(InputError, match=r"embeddings must cover every sample once, got .* twice"):
        open_embeddings([*folders, folders[0]], train)
    with pytest.raises(InputError, match=r"embeddings must be a folder with embeddings.json, got '.*nowhere'"):
        open_embeddings([tmp_path / "nowhere"], train)
    with pytest.raises(InputError, match="embeddings must be made by one CLIP with the same prompts, got none"):
        open_embeddings([], train)


def test_embeddings_by_two_models(embed_all, tiny_clip, table_folder, tmp_path):
    weights = load_file(tiny_clip.folder / "tiny.safetensors")
    save_file(weights | {"logit_scale": torch.tensor(1.0)}, tmp_path / "other.safetensors")
    mine, _ = embed_all()
    theirs, _ = embed_all(replace(tiny_clip.config, checkpoint=str(tmp_path / "other.safetensors")), "theirs")
    with pytest.raises(InputError, match=r"embeddings must be made by one CLIP .*, got tiny .*, tiny "):
        open_embeddings([mine[0], theirs[1]], open_table(table_folder))


@pytest.mark.parametrize("field", ["model", "pretrained", "precision", "open_clip"])
def test_shards_must_be_made_alike(field, embed_all, table_folder):
    folders, _ = embed_all()
    info = read_json(Path(folders[1]) / "embeddings.json")
    write_json(Path(folders[1]) / "embeddings.json", info | {field: "another"})
    with pytest.raises(InputError, match="embeddings must be made by one CLIP"):
        open_embeddings(folders, open_table(table_folder))


@pytest.mark.parametrize("name", ["embeddings.arrow", "texts.npy"])
def test_embeddings_with_one_other_byte_are_refused(embed_all, table_folder, name):
    folders, _ = embed_all()
    file = Path(folders[0]) / name
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"^{name} must have the SHA-256 that embeddings.json says, .*, got "):
        open_embeddings(folders, open_table(table_folder))
    file.unlink()
    with pytest.raises(InputError, match=r", got no file$"):
        open_embeddings(folders, open_table(table_folder))
