import numpy as np
import pytest
import torch
from PIL import Image

from secateur.dataset import loader, open_table
from secateur.dataset.images import decode, fit
from secateur.dataset.loader import Pictures, augment, common_size
from secateur.dataset.table import Row, write_table
from secateur.errors import InputError
from secateur.streams import sample_keys

CPU = torch.device("cpu")


def test_resident_and_streamed_batches_are_equal(digits_folder):
    table = open_table(digits_folder).part("test")
    batches = [np.array([3, 1, 4]), np.array([1, 5, 9, 2]), np.array([6])]
    resident = list(Pictures(table, 8, CPU, resident=True).batches(batches))
    streamed = list(Pictures(table, 8, CPU, resident=False).batches(batches))
    for index_B, held, read in zip(batches, resident, streamed, strict=True):
        assert torch.equal(held, read)
        assert np.array_equal(read[0].numpy(), fit(decode(table.image(int(index_B[0]))), 8))


def test_the_processes_of_a_machine_share_its_cores_and_its_memory(digits_folder, monkeypatch):
    table, workers, make = open_table(digits_folder).part("test"), [], torch.utils.data.DataLoader

    def watched(*args, num_workers, **options):
        workers.append(num_workers)
        return make(*args, num_workers=0, **options)

    monkeypatch.setattr(torch.utils.data, "DataLoader", watched)
    monkeypatch.setattr(loader, "cores", lambda: 6)
    monkeypatch.setattr(loader, "RESIDENT_BYTES", len(table) * 3 * 8 * 8)
    held = []
    for processes in ("1", "2"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        held.append(Pictures(table, 8, CPU).resident_N3HW is not None)
        list(Pictures(table, 8, CPU, resident=False).batches([np.array([i]) for i in range(9)]))
    assert held == [True, False]
    assert workers == [6, 3]


def test_a_sample_meets_the_same_change_in_any_batch():
    key_N = sample_keys([str(i) for i in range(16)])
    pictures = torch.randint(0, 255, (16, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = augment(pictures, key_N, "shift-flip", 0, 3)
    picked = np.array([7, 2, 11])
    assert torch.equal(augment(pictures[picked], key_N[picked], "shift-flip", 0, 3), whole[picked])
    assert not torch.equal(augment(pictures, key_N, "shift-flip", 0, 4), whole)


def test_shifts_against_a_slow_oracle():
    key_N = sample_keys([str(i) for i in range(64)])
    pictures = torch.randint(0, 255, (64, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    padded = np.pad(pictures.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    seen = set()
    for before, after in zip(padded, augment(pictures, key_N, "shift", 0, 0).numpy(), strict=True):
        windows = {(d, r): before[:, d : d + 8, r : r + 8] for d in range(3) for r in range(3)}
        seen.add(next(place for place, window in windows.items() if np.array_equal(window, after)))
    assert len(seen) == 9


def test_sizes(digits_folder, tmp_path):
    assert common_size(open_table(digits_folder), 0) == 8
    assert common_size(open_table(digits_folder), 32) == 32
    rows = []
    for i, size in enumerate([(8, 8), (8, 9)]):
        Image.new("RGB", size).save(tmp_path / f"{i}.png")
        rows.append(Row((tmp_path / f"{i}.png").read_bytes(), 0, "train", ""))
    write_table(tmp_path / "t", rows, name="t", classes=["x"])
    with pytest.raises(InputError, match=r"image_size must be given .* got sizes \[\(8, 8\), \(8, 9\)\]"):
        common_size(open_table(tmp_path / "t"), 0)


def test_pictures_are_fitted_by_scaling_and_cutting():
    wide = Image.new("RGB", (20, 10), "red")
    wide.paste("blue", (0, 0, 2, 10))
    fitted = fit(wide, 5)
    assert fitted.shape == (3, 5, 5)
    assert (fitted[0] == 255).all()  # the blue edge lies outside the centre
