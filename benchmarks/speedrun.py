"""How quickly a network gets to 94 % or 96 % on CIFAR-10, with and without pruning: a loop of its own around a Pruner.

    python -m benchmarks.speedrun --data DIR --target 94 --methods none,random,multimodal --keep 0.6

After the idea of cifar10-airbench (K. Jordan, 2024): a whitened stem, wide convolutions, data and augmentation on the
device, mirroring by turns, and a few epochs at a high rate. The clock runs over training and choosing; building,
compiling (a step on blank pictures) and the test do not count. `--toy N` takes N pictures, narrow layers, two epochs.
"""

import argparse
import time
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.data import Data, cifar10
from benchmarks.grid import RECORDS, SCRATCH, hardware
from benchmarks.recipes import Scaled, conv_block, whiten
from benchmarks.semantics import fit, similarities
from secateur.dataset.loader import Pictures
from secateur.files import write_json
from secateur.pruning.config import PruneConfig
from secateur.pruning.methods import METHODS
from secateur.pruning.objective import Objective
from secateur.pruning.pruner import Pruner
from secateur.streams import stream_seed
from secateur.training.loop import pick_device

PLAIN = "none"
SMOOTHING = 0.2  # share of the uniform distribution in the targets; the losses that methods see are plain


@dataclass(frozen=True)
class Speedrun:
    """Network and optimisation for a target."""

    widths: tuple[int, int, int]
    depth: int  # convolutions of a block
    epochs: float  # of ordinary training; pruning spends `keep` of what follows the first
    batch: int = 1024
    learning_rate: float = 1.0  # of Nesterov SGD, at its peak
    momentum: float = 0.85
    weight_decay: float = 2e-4
    shift: int = 2  # pixels


RECIPES = {
    94: Speedrun((64, 256, 256), 2, 10),
    96: Speedrun((128, 384, 512), 3, 40, learning_rate=0.8, shift=4),
}


class Block(nn.Sequential):
    """Convolutions, the first one pooled; what follows it, if there are three, has a way around."""

    def __init__(self, inputs: int, outputs: int, depth: int) -> None:
        super().__init__(*conv_block(inputs, outputs, pool=True))
        rest = [m for _ in range(depth - 1) for m in conv_block(outputs, outputs, pool=False)]
        self.rest, self.around = nn.Sequential(*rest), depth > 2

    def forward(self, value: Tensor) -> Tensor:
        """Features at half the side."""
        for module in list(self)[:4]:
            value = module(value)
        out: Tensor = self.rest(value)
        return value + out if self.around else out


def make_network(recipe: Speedrun, classes: int, pictures_B3HW: Tensor) -> nn.Module:
    """A network on pictures of mean 0 and variance 1."""
    stem = nn.Conv2d(3, 24, 2)
    whiten(stem, pictures_B3HW)
    stem.weight.requires_grad = False
    sizes = (24, *recipe.widths)
    blocks = [Block(a, b, recipe.depth) for a, b in pairwise(sizes)]
    return nn.Sequential(
        stem, nn.GELU(), *blocks, nn.AdaptiveMaxPool2d(1), nn.Flatten(), Scaled(recipe.widths[-1], classes, 1 / 9)
    )


class Loader:
    """Normalised pictures on the device; each epoch a new order, new shifts, and every second picture mirrored."""

    def __init__(self, pictures: Pictures, recipe: Speedrun, seed: int) -> None:
        assert pictures.resident_N3HW is not None
        self.picture_N3HW = normalised(pictures.resident_N3HW)
        self.device, self.recipe, self.seed = self.picture_N3HW.device, recipe, seed
        self.side = self.picture_N3HW.shape[-1]
        self.mirrored_N = self.draw("mirror", 0, 2).bool()

    def draw(self, stream: str, epoch: int, high: int) -> Tensor:
        """A whole number for each picture, the same whatever is active."""
        generator = torch.Generator(self.device).manual_seed(stream_seed(stream, self.seed, epoch))
        return torch.randint(high, (len(self.picture_N3HW),), generator=generator, device=self.device)

    def epoch(self, active_N: Tensor, epoch: int) -> Any:
        """Positions and changed pictures, batch by batch."""
        generator = torch.Generator(self.device).manual_seed(stream_seed("order", self.seed, epoch))
        order = torch.randperm(len(active_N), generator=generator, device=self.device)
        order, size, reach = order[active_N[order]], self.recipe.batch, self.recipe.shift
        down_N, across_N = (self.draw(axis, epoch, 2 * reach + 1) for axis in ("down", "across"))
        mirrored_N = self.mirrored_N ^ bool(epoch % 2)
        place = torch.arange(self.side, device=self.device)
        for index_B in order[: max(size, len(order) // size * size)].split(size):
            padded = functional.pad(self.picture_N3HW[index_B], (reach,) * 4, mode="reflect")
            columns = torch.where(mirrored_N[index_B, None], place.flip(0), place) + across_N[index_B, None]
            rows = place + down_N[index_B, None]
            batch = torch.arange(len(index_B), device=self.device)[:, None, None]
            changed = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
            yield index_B, changed.permute(0, 3, 1, 2)


def normalised(picture_N3HW: Tensor) -> Tensor:
    """Pictures of about mean 0 and variance 1, half precision on a GPU."""
    dtype = torch.bfloat16 if picture_N3HW.is_cuda else torch.float32
    return ((picture_N3HW.float() / 255 - 0.5) / 0.25).to(dtype).contiguous(memory_format=torch.channels_last)


def train(network: nn.Module, loader: Loader, label_N: Tensor, pruner: Pruner, recipe: Speedrun) -> dict[str, float]:
    """Train to the end of the budget; the seconds that it took, and those of choosing among them."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        parameters, lr=1.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    per_epoch = max(1, len(label_N) // recipe.batch)
    budget = round(per_epoch * (1 + (recipe.epochs - 1) * pruner.config.keep))
    objective, everything_N = Objective(pruner), torch.ones(len(label_N), dtype=torch.bool, device=label_N.device)
    step, epoch, choosing = 0, 0, 0.0
    network.train()
    synchronise(label_N)
    started = time.perf_counter()
    while step < budget:
        active_N = everything_N
        if epoch:
            before = time.perf_counter()
            done = (step - per_epoch) / max(1, budget - per_epoch)
            chosen = pruner.next_epoch(epoch, min(max(done, 0.0), 1 - 1e-6))
            active_N = torch.from_numpy(chosen.active_N).to(label_N.device)
            choosing += time.perf_counter() - before
        for index_B, pictures in loader.epoch(active_N, epoch):
            if step >= budget:
                break
            with torch.autocast(label_N.device.type, torch.bfloat16):
                logits_BC = network(pictures)
            logits_BC = logits_BC.float()
            loss_B = functional.cross_entropy(logits_BC, label_N[index_B], reduction="none")
            even = -logits_BC.log_softmax(1).mean()
            ((1 - SMOOTHING) * objective(index_B, loss_B, logits_BC) + SMOOTHING * even).backward()
            rate = recipe.learning_rate * min((step + 1) / (0.2 * budget), (budget - step) / (0.8 * budget))
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
        epoch += 1
    synchronise(label_N)
    return {"seconds": time.perf_counter() - started, "choosing_seconds": choosing, "steps": step, "epochs": epoch}


def synchronise(tensor: Tensor) -> None:
    """Wait for the device."""
    if tensor.is_cuda:
        torch.cuda.synchronize()


@torch.no_grad()
def accuracy(network: nn.Module, picture_N3HW: Tensor, label_N: Tensor) -> float:
    """In percent, each picture seen as it is and mirrored."""
    network.eval()
    right = 0
    for pictures, label_B in zip(picture_N3HW.split(1000), label_N.split(1000), strict=True):
        with torch.autocast(label_N.device.type, torch.bfloat16):
            logits_BC = network(pictures).float() + network(pictures.flip(3)).float()
        right += int((logits_BC.argmax(1) == label_B).sum())
    return 100 * right / len(label_N)


def run(data: Data, recipe: Speedrun, method: str, keep: float, seed: int, semantics: Any) -> dict[str, Any]:
    """One run."""
    device, table = pick_device(), data.table
    pictures = {split: Pictures(table.part(split), 32, device, resident=True) for split in ("train", "test")}
    label = {
        split: torch.from_numpy(table.part(split).label.astype(np.int64)).to(device) for split in ("train", "test")
    }
    config = PruneConfig(
        method="full" if method == PLAIN else method, keep=1.0 if method == PLAIN else keep, epochs=int(recipe.epochs)
    )
    wants = "semantics" in METHODS[config.method].needs
    train_part = table.part("train")
    pruner = Pruner(
        config, train_part.sample_id.tolist(), train_part.label, seed=seed, semantics=semantics if wants else None
    )
    loader = Loader(pictures["train"], recipe, seed)
    with torch.random.fork_rng():
        torch.manual_seed(stream_seed("initialisation", seed))
        network = make_network(recipe, len(table.info.classes), loader.picture_N3HW[:2000].float().cpu())
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type == "cuda":
        network.compile()
        with torch.autocast("cuda", torch.bfloat16):  # compiles; batch norm's averages move on from there
            network(torch.zeros_like(loader.picture_N3HW[: recipe.batch])).float().mean().backward()
        network.zero_grad(set_to_none=True)
    figures = train(network, loader, label["train"], pruner, recipe)
    assert pictures["test"].resident_N3HW is not None
    figures["test_accuracy"] = accuracy(network, normalised(pictures["test"].resident_N3HW), label["test"])
    return {"method": method, "keep": config.keep, "seed": seed} | figures


def write_record(folder: Path, recipe: Speedrun, target: int, runs: list[dict[str, Any]]) -> None:
    """Write the runs, and a table of means."""
    machine = hardware(torch.get_num_threads(), 1)
    write_json(folder / "runs.json", {"recipe": asdict(recipe), "hardware": machine, "runs": runs})
    lines = [
        f"# Speedrun to {target} %",
        "",
        f"{machine['gpu'] or machine['cpu']}, torch {torch.__version__}. Seconds of training and choosing.",
        "",
        "| method | keep | runs | test accuracy, % | seconds | choosing, seconds | steps |",
        "|---|" + "---:|" * 6,
    ]
    for method, keep in dict.fromkeys((r["method"], r["keep"]) for r in runs):
        mine = [r for r in runs if (r["method"], r["keep"]) == (method, keep)]
        mean = {k: np.mean([r[k] for r in mine]) for k in ("test_accuracy", "seconds", "choosing_seconds", "steps")}
        lines.append(
            f"| {method} | {keep:g} | {len(mine)} | {mean['test_accuracy']:.2f} | {mean['seconds']:.2f} "
            f"| {mean['choosing_seconds']:.3f} | {mean['steps']:.0f} |"
        )
    (folder / "README.md").write_text("\n".join(lines) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Run all methods at all seeds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speedrun", description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with CIFAR-10")
    parser.add_argument("--target", type=int, default=94, choices=tuple(RECIPES))
    parser.add_argument("--methods", type=lambda text: text.split(","), default=[PLAIN, "random", "multimodal"])
    parser.add_argument("--keep", type=float, default=0.6)
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--toy", type=int, default=0, help="so many training pictures only, and a narrow network")
    parser.add_argument("--cache", default=str(SCRATCH / "cache"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)
    folder = args.out or RECORDS / f"speedrun-{args.target}"
    folder.mkdir(parents=True, exist_ok=True)
    recipe = RECIPES[args.target]
    if args.toy:
        recipe = replace(recipe, widths=(8, 16, 16), epochs=2, batch=64)
    data = cifar10("clean", args.data, args.cache, args.toy)
    semantics = None
    if any("semantics" in METHODS[m].needs for m in args.methods if m != PLAIN):
        semantics, _ = fit(similarities("similarity", data, args.data, args.cache), data)
    runs = []
    for seed in range(args.seeds):
        for method in args.methods:
            runs.append(run(data, recipe, method, args.keep, seed, semantics))
            print(", ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in runs[-1].items()))
            write_record(folder, recipe, args.target, runs)


if __name__ == "__main__":
    main()
