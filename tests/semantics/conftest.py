import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from secateur.semantics.config import ClipConfig

MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 1, "width": 64, "patch_size": 8, "image_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@dataclass
class TinyClip:
    """A small model of random weights, as a user would bring it."""

    folder: Path
    model: torch.nn.Module

    @property
    def config(self) -> ClipConfig:
        return ClipConfig(checkpoint=str(self.folder / "tiny.safetensors"), clip_config=str(self.folder / "tiny.json"))


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> TinyClip:
    import open_clip

    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = open_clip.CLIP(**MODEL).eval()
    save_file(model.state_dict(), folder / "tiny.safetensors")
    (folder / "tiny.json").write_text(json.dumps(MODEL))
    return TinyClip(folder, model)
