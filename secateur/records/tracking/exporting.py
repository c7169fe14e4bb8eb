"""A trained network as a program that runs without its code, made in a process of its own.

`torch.export` costs eight seconds of imports, MLflow four; side by side they cost the larger one. Nothing here is
pickled, and what was saved is loaded and compared before anybody sees it.
"""

import gc
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from secateur.files import replacing, write_json

PROGRAM_FILE = "model.pt2"  # the name that MLflow's loader expects
EXAMPLE_FILE = "example.npy"
INFO_FILE = "export.json"
EXAMPLES = 2  # torch.export takes a batch of one for a constant
TOLERANCE = 1e-4  # of logits; the exported operators may round otherwise


@contextmanager
def exporting(
    model_folder: str | Path, seed: int, dataset_folder: str | Path, out_folder: str | Path
) -> Iterator[Callable[[], Path]]:
    """Begin an export beside what the block does; leaving the block ends it.

    Gives a function that waits for the folder with `model.pt2`, `example.npy` and `export.json`. It raises a
    `RuntimeError` with what PyTorch says, if the network cannot be exported.
    """
    arguments = [str(model_folder), str(seed), str(dataset_folder), str(out_folder)]
    with tempfile.TemporaryFile() as messages:  # a pipe that nobody reads yet could fill up
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=messages,
        )

        def result() -> Path:
            if process.wait():
                messages.seek(0)
                said = messages.read().decode(errors="replace")
                raise RuntimeError(f"the model cannot be exported with torch.export:\n{said}")
            return Path(out_folder)

        try:
            yield result
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def export_network(model_folder: str | Path, seed: int, dataset_folder: str | Path, out_folder: str | Path) -> None:
    """Export the classifier of a seed, float32 (B, 3, H, W) in [0, 1] to logits (B, C), for batches of any size.

    Args:
        model_folder: A run folder.
        seed: Whose network.
        dataset_folder: The table; its first test pictures become the example.
        out_folder: Where the program, the example, and the number of classes and PyTorch's version are written.

    Raises:
        RuntimeError: What was saved gives other logits.
    """
    import numpy as np
    import torch

    from secateur.dataset import open_table
    from secateur.dataset.images import decode, fit
    from secateur.training.saved import load_network

    network = load_network(model_folder, seed).cpu()
    test = open_table(dataset_folder).part("test")
    pictures = [fit(decode(test.image(i % len(test))), network.image_size) for i in range(EXAMPLES)]
    example = torch.from_numpy(np.stack(pictures)).to(torch.float32) / 255
    with torch.no_grad():
        logits = network(example)
        program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        with replacing(out_folder) as temporary:
            temporary.mkdir()
            torch.export.save(program, temporary / PROGRAM_FILE)
            again = torch.export.load(temporary / PROGRAM_FILE).module()(torch.cat([example, example]))
            if not torch.allclose(again, torch.cat([logits, logits]), rtol=TOLERANCE, atol=TOLERANCE):
                raise RuntimeError("the exported program gives other logits than the network")
            np.save(temporary / EXAMPLE_FILE, example.numpy())
            write_json(temporary / INFO_FILE, {"classes": logits.shape[1], "torch": torch.__version__})


if __name__ == "__main__":
    gc.disable()  # it looks through PyTorch's modules again and again while they are imported
    export_network(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
