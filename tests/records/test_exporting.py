import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_outputs import CLASSES, Outputs

from secateur.files import read_json
from secateur.records.tracking.exporting import export_network, exporting
from secateur.training import saved


def test_an_exported_network_gives_the_same_logits_for_any_batch(outputs: Outputs, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    export_network(outputs.files["model_folder"], 4, outputs.files["dataset_folder"], folder)
    network = saved.load_network(outputs.files["model_folder"], 4)
    program = torch.export.load(folder / "model.pt2").module()
    for size in (1, 5):
        pictures = torch.rand(size, 3, 8, 8)
        torch.testing.assert_close(program(pictures), network(pictures))
    example = np.load(folder / "example.npy")
    assert (example.shape, example.dtype) == ((2, 3, 8, 8), np.float32)
    assert 0 <= example.min() < example.max() <= 1
    assert read_json(folder / "export.json") == {"classes": len(CLASSES), "torch": torch.__version__}


def test_a_program_that_gives_other_logits_is_not_kept(
    outputs: Outputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful(torch.nn.Module):
        image_size = 8

        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, pictures_B3HW: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return pictures_B3HW.flatten(1)[:, :3] * self.calls

    monkeypatch.setattr(saved, "load_network", lambda *_: Forgetful())
    with pytest.raises(RuntimeError, match="other logits"):
        export_network(outputs.files["model_folder"], 4, outputs.files["dataset_folder"], tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_what_goes_wrong_in_the_other_process_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such operator >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with exporting(tmp_path, 4, tmp_path, tmp_path) as exported, pytest.raises(RuntimeError, match="no such operator"):
        exported()


def test_leaving_the_block_ends_the_other_process(outputs: Outputs, tmp_path: Path) -> None:
    with exporting(outputs.files["model_folder"], 4, outputs.files["dataset_folder"], tmp_path / "export"):
        pass
    assert list(tmp_path.iterdir()) == []
