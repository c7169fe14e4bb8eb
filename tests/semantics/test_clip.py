import hashlib
import http.server
import json
import pickle
import re
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from secateur.errors import InputError
from secateur.semantics import clip as clip_module
from secateur.semantics import hub
from secateur.semantics.clip import load_clip, register
from secateur.semantics.config import ClipConfig, resolve
from secateur.semantics.weights import find_weights

REPOSITORY = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
TAG = "laion2b_s34b_b79k"


@pytest.mark.parametrize(
    ("given", "dataset", "clip", "pretrained"),
    [
        (ClipConfig(), "digits", "digits-clip", ""),
        (ClipConfig(), "flowers", "ViT-B-32", TAG),
        (ClipConfig(clip="ViT-B-32"), "digits", "ViT-B-32", TAG),
        (ClipConfig(pretrained="openai"), "digits", "ViT-B-32", "openai"),
        (ClipConfig(clip="RN50", pretrained="openai"), "flowers", "RN50", "openai"),
        (ClipConfig(clip="RN50"), "flowers", "RN50", ""),
        (ClipConfig(clip="RN50", checkpoint="x.pt"), "digits", "RN50", ""),
        (ClipConfig(checkpoint="x.pt", clip_config="folder/mine.json"), "digits", "mine", ""),
    ],
)
def test_auto_is_made_concrete(given, dataset, clip, pretrained):
    resolved = resolve(given, dataset)
    assert (resolved.clip, resolved.pretrained) == (clip, pretrained)
    assert resolve(resolved, dataset) == resolved


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClipConfig(embed_batch=-1), "embed_batch must be in [0, inf), got -1"),
        (lambda: ClipConfig(embed_workers=-1), "embed_workers must be in [0, inf), got -1"),
        (
            lambda: ClipConfig(embed_precision="int4"),
            "embed_precision must be one of auto, bf16, fp16",
        ),
        (lambda: ClipConfig(clip_config="mine.json"), "clip_config must come with checkpoint"),
        (lambda: ClipConfig(checkpoint="x.pt", pretrained="openai"), "pretrained must be left out where a checkpoint"),
        (lambda: resolve(ClipConfig(checkpoint="x.pt"), "digits"), "clip must name the open_clip model"),
        (lambda: resolve(ClipConfig(clip="digits-clip", pretrained="openai"), "digits"), "pretrained must be left out"),
    ],
)
def test_settings_that_do_not_go_together(make, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make()


def test_a_model_from_a_file_is_the_model(tiny_clip):
    clip = load_clip(resolve(tiny_clip.config, "flowers"))
    picture_B3HW = torch.rand(5, 3, 16, 16)
    texts = ["a cat", "a handwritten dog"]
    tokens = open_clip.SimpleTokenizer(context_length=12)(texts)
    with torch.no_grad():
        image_BD = tiny_clip.model.encode_image(picture_B3HW, normalize=True)
        text_BD = tiny_clip.model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(clip.encode_images(picture_B3HW).to("cpu"), image_BD, atol=2e-3, rtol=0)
    torch.testing.assert_close(clip.encode_texts(texts), text_BD, atol=2e-3, rtol=0)
    assert clip.encode_images(picture_B3HW).dtype == torch.float32
    assert clip.digest == hashlib.sha256((tiny_clip.folder / "tiny.safetensors").read_bytes()).hexdigest()
    assert not clip.model.training


@pytest.mark.parametrize("wrap", ["plain", "trained by open_clip"])
def test_a_plain_state_dict_is_as_good(tiny_clip, tmp_path, wrap):
    state = tiny_clip.model.state_dict()
    if wrap != "plain":
        state = {"epoch": 3, "name": "mine", "state_dict": {f"module.{k}": v for k, v in state.items()}}
    torch.save(state, tmp_path / "tiny.pt")
    one = load_clip(resolve(tiny_clip.config, "flowers"))
    other = load_clip(resolve(replace(tiny_clip.config, checkpoint=str(tmp_path / "tiny.pt")), "flowers"))
    assert one.encode_texts(["a cat"]).equal(other.encode_texts(["a cat"]))
    assert one.digest != other.digest


def test_pictures_are_prepared_as_the_hubs_config_says(tiny_clip, tmp_path):
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3], "resize_mode": "squash"}
    whole = {"model_cfg": json.loads((tiny_clip.folder / "tiny.json").read_text()), "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(whole))
    clip = load_clip(resolve(replace(tiny_clip.config, clip_config=str(tmp_path / "open_clip_config.json")), "flowers"))
    pixel_HW3 = clip.preprocess.pixels(Image.new("RGB", (40, 20), (128, 128, 128)))
    grey_3HW = clip.preprocess.normalise(torch.from_numpy(pixel_HW3[None].copy()))[0]
    assert grey_3HW.shape == (3, 16, 16)
    expected_3 = (128 / 255 - np.array(preprocess["mean"])) / preprocess["std"]
    np.testing.assert_allclose(grey_3HW.mean((1, 2)), expected_3, rtol=1e-4)


def test_loading_leaves_the_random_state_alone(tiny_clip):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load_clip(resolve(tiny_clip.config, "flowers"))
    assert torch.get_rng_state().equal(before)


def test_a_config_of_ones_own_hides_no_known_model(tiny_clip, tmp_path):
    known = open_clip.get_model_config("ViT-B-32")
    own = tmp_path / "ViT-B-32.json"
    own.write_text((tiny_clip.folder / "tiny.json").read_text())
    clip = load_clip(resolve(replace(tiny_clip.config, clip_config=str(own)), "flowers"))
    assert clip.preprocess.size == (16, 16)
    assert open_clip.get_model_config("ViT-B-32") == known


def test_weights_bring_their_activation_and_preprocessing():
    name, settings = register(ClipConfig(clip="ViT-B-32", pretrained="openai"))
    assert (name, settings["quick_gelu"]) == ("ViT-B-32", True)


class Nasty:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def bad_checkpoint(kind: str, tiny, folder: Path) -> Path:
    state = tiny.model.state_dict()
    file = folder / f"bad.{'safetensors' if kind in ('other shapes', 'cut short', 'empty') else 'pt'}"
    if kind == "other shapes":
        save_file(state | {"text_projection": torch.zeros(16, 99)}, file)
    elif kind == "cut short":
        file.write_bytes((tiny.folder / "tiny.safetensors").read_bytes()[:5000])
    elif kind == "empty":
        save_file({}, file)
    elif kind == "pickle":
        file.write_bytes(pickle.dumps({"weights": Nasty(folder / "touched")}, protocol=2))
    elif kind == "pickle in a zip":
        torch.save({"weights": Nasty(folder / "touched")}, file)
    elif kind == "no dict":
        torch.save(torch.zeros(3), file)
    elif kind == "text":
        file.write_text("not a checkpoint")
    return file


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("other shapes", "checkpoint must hold weights of tiny, got .*text_projection"),
        ("cut short", "checkpoint must hold weights of tiny, got .*bad.safetensors"),
        ("empty", "checkpoint must hold weights of tiny, got .*bad.safetensors"),
        ("no dict", "checkpoint must hold weights of tiny, got .*bad.pt"),
        ("pickle", "checkpoint must be safetensors or a plain state dict, which is read without unpickling"),
        ("pickle in a zip", "checkpoint must be safetensors or a plain state dict, which is read without unpickling"),
        ("text", "checkpoint must be safetensors or a plain state dict"),
    ],
)
def test_a_bad_checkpoint(kind, message, tiny_clip, tmp_path):
    file = bad_checkpoint(kind, tiny_clip, tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        load_clip(resolve(replace(tiny_clip.config, checkpoint=str(file)), "flowers"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ClipConfig(clip="RN50", checkpoint="nowhere.pt"), "checkpoint must be a file, got 'nowhere.pt'"),
        (ClipConfig(clip="ViT-B-33"), "clip must be a model that open_clip .*such as ViT-B-32.* got 'ViT-B-33'"),
        (ClipConfig(clip="ViT-L-14"), "pretrained must be one of openai, .* for ViT-L-14, got ''"),
        (
            ClipConfig(clip="ViT-B-32", pretrained="laion9b"),
            "pretrained must be one of .*laion2b_s34b_b79k.* 'laion9b'",
        ),
        (ClipConfig(clip="ViT-S-32"), "clip must be a model with weights on the hub, got 'ViT-S-32', .* --checkpoint"),
    ],
)
def test_a_model_or_weights_that_nobody_knows(config, message):
    with pytest.raises(InputError, match=message):
        find_weights(resolve(config, "flowers"))


def test_an_unknown_model_with_a_checkpoint(tiny_clip):
    with pytest.raises(InputError, match="clip must be a model that open_clip"):
        load_clip(replace(tiny_clip.config, clip="ViT-Q", clip_config=""))


def test_arrays_of_another_library_are_no_checkpoint(tmp_path):
    np.savez(tmp_path / "weights.npz", x=np.zeros(3))
    with pytest.raises(InputError, match=r"checkpoint must be safetensors or a plain state dict, got .*npz"):
        find_weights(ClipConfig(clip="RN50", checkpoint=str(tmp_path / "weights.npz")))


def test_a_model_whose_texts_need_another_package(monkeypatch):
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="clip must be a model that does without the package transformers"):
        find_weights(ClipConfig(clip="ViT-B-16-SigLIP", pretrained="webli"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "clip_config must be a file, got"),
        ("{", "clip_config must be an open_clip model config, got .*Expecting"),
        ("[]", "clip_config must be an open_clip model config, got"),
        ('{"embed_dim": 4, "text_cfg": {}}', "clip_config must have .* without vision_cfg"),
        ('{"embed_dim": 4, "text_cfg": {}, "vision_cfg": {"wings": 2}}', "clip_config must be .*wings"),
    ],
)
def test_a_bad_model_config(content, message, tiny_clip, tmp_path):
    if content is not None:
        (tmp_path / "bad.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load_clip(resolve(replace(tiny_clip.config, clip_config=str(tmp_path / "bad.json")), "flowers"))


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_hub_that_refuses_is_named_at_once(own_cache, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(hub.constants, "ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(InputError, match=r"http://127.0.0.1:\d+ cannot be reached: .*--checkpoint .*--clip-config"):
            hub.find_pretrained("ViT-B-32", TAG)
    assert time.monotonic() - started < 4


def test_a_hub_that_is_silent_is_not_waited_for(own_cache, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(hub.constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(hub, "PROBE_SECONDS", 0.5)
        started = time.monotonic()
        with pytest.raises(InputError, match="cannot be reached"):
            hub.find_pretrained("ViT-B-32", TAG)
    assert time.monotonic() - started < 4


@contextmanager
def fake_hub(files: dict[str, bytes]):
    """A hub with these files, each by its path."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, *, body: bool) -> None:
            content = b"" if self.path == "/" else files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.send_header("X-Repo-Commit", "c" * 40)
            self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
            self.end_headers()
            if body and content:
                self.wfile.write(content)

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_weights_are_downloaded_once_and_then_need_no_network(own_cache, monkeypatch):
    content = b"weights" * 100
    path = f"/{REPOSITORY}/resolve/main/open_clip_model.safetensors"
    with fake_hub({path: content}) as endpoint:
        monkeypatch.setattr(hub.constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        file = hub.find_pretrained("ViT-B-32", TAG)
    assert file.read_bytes() == content

    def no_network():
        raise AssertionError("the network was asked")

    monkeypatch.setattr(hub, "get_session", no_network)
    monkeypatch.setattr("huggingface_hub.utils._http.get_session", no_network)
    assert hub.find_pretrained("ViT-B-32", TAG) == file


def test_a_hub_without_the_weights(own_cache, monkeypatch):
    with fake_hub({}) as endpoint:
        monkeypatch.setattr(hub.constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        with pytest.raises(InputError, match=r"pretrained must be weights that can be downloaded, .*--checkpoint"):
            hub.find_pretrained("ViT-B-32", TAG)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_there_for_the_asking(tiny_clip, precision):
    half = load_clip(resolve(replace(tiny_clip.config, embed_precision=precision), "flowers"))
    whole = load_clip(resolve(replace(tiny_clip.config, embed_precision="fp32"), "flowers"))
    assert (half.precision, whole.precision) == (precision, "fp32")
    assert half.model.visual.transformer.resblocks[0].mlp.c_fc.weight.element_size() == 2
    pixel_BHW3 = torch.randint(256, (9, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    cosine_B = (half.encode_pixels(pixel_BHW3) * whole.encode_pixels(pixel_BHW3)).sum(1)
    assert cosine_B.min() > 0.999


def test_many_texts_are_what_each_is_alone(tiny_clip, monkeypatch):
    clip = load_clip(resolve(tiny_clip.config, "flowers"))
    monkeypatch.setattr(clip_module, "TEXTS_PER_STEP", 2)
    texts = ["a cat", "two dogs", "seven handwritten ducks", "snow", "rain"]
    alone = torch.cat([clip.encode_texts([text]) for text in texts])
    torch.testing.assert_close(clip.encode_texts(texts), alone, atol=1e-5, rtol=0)


def test_half_precision_gives_nearly_the_same(tiny_clip):
    weights = load_file(tiny_clip.folder / "tiny.safetensors")
    save_file({name: value.half() for name, value in weights.items()}, tiny_clip.folder / "half.safetensors")
    half = load_clip(
        resolve(replace(tiny_clip.config, checkpoint=str(tiny_clip.folder / "half.safetensors")), "flowers")
    )
    whole = load_clip(resolve(tiny_clip.config, "flowers"))
    picture_B3HW = torch.rand(4, 3, 16, 16)
    cosine_B = (half.encode_images(picture_B3HW) * whole.encode_images(picture_B3HW)).sum(1)
    assert cosine_B.min() > 0.999
