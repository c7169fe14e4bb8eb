"""The two steps that train: the warm-up on all samples, and pruning while training goes on; or anew at its end."""

import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_model

import secateur
from secateur.dataset import ImageTable, open_table
from secateur.dataset.loader import common_size
from secateur.files import read_json, write_json
from secateur.pruning.config import PruneConfig
from secateur.pruning.distributed import place
from secateur.pruning.mask import Mask, write_mask, write_trajectory
from secateur.pruning.method import Semantics
from secateur.pruning.methods import find_method
from secateur.pruning.pruner import Pruner
from secateur.semantics.choosing import choose_label_model
from secateur.semantics.embeddings import open_embeddings
from secateur.state import content_key
from secateur.streams import sample_keys
from secateur.training.checkpoint import CheckpointStore, dump, load
from secateur.training.config import TrainConfig
from secateur.training.distributed import in_processes, steady, writing
from secateur.training.loop import pick_device
from secateur.training.phases import Pruning, Retraining, WarmUp, drive
from secateur.training.preliminary import Scout, find_once
from secateur.training.saved import RUN_FILE
from secateur.training.seed import Seed

log = logging.getLogger(__name__)

WARMUP_FILE = "warmup.json"
SAID = {"clip": "CLIP's texts", "adapted": "CLIP's texts, adapted,", "combined": "CLIP, neighbours and probe"}


@in_processes
def warm_up(dataset_folder: str | Path, config: TrainConfig, out_folder: str | Path) -> dict[str, float]:
    """Train on all samples for a few epochs, one model for each seed, and save state and losses.

    Args:
        dataset_folder: The table.
        config: Model, optimisation, epochs and seeds.
        out_folder: Where `warmup.json` and one state for each seed are written.

    Returns:
        Final figures, mean over the seeds: train_loss, samples, and validation_accuracy where there is such a split.

    Raises:
        InputError: An unknown model, pictures of several sizes, or a loss that is not finite.
    """
    table = open_table(dataset_folder)
    size = common_size(table, config.image_size)
    store = CheckpointStore(
        out_folder, step="warm-up", data=table.info.digest, config=asdict(config), version=secateur.__version__
    )
    finals = []
    with writing(out_folder) as temporary, steady(config.deterministic):
        temporary.mkdir()
        for seed in config.seeds:
            work = Seed(table, config, size, seed)
            drive(WarmUp(work, config), store)
            (temporary / f"seed-{seed}.pt").write_bytes(dump(work.state_dict()))
            finals.append(work.history[-1])
        write_json(temporary / WARMUP_FILE, run_identity(table, config, size))
    store.clear()
    return mean_figures(finals, ("train_loss", "validation_accuracy", "samples"))


@in_processes
def prune(
    dataset_folder: str | Path,
    embedding_folders: Sequence[str | Path],
    warmup_folder: str | Path,
    config: PruneConfig,
    model_folder: str | Path,
    mask_folder: str | Path,
) -> dict[str, float]:
    """Go on from the warm-up with a method that chooses the samples, until the budget is spent; retrain, if asked to.

    Args:
        dataset_folder: The table.
        embedding_folders: CLIP embeddings of its shards; none for methods that do without.
        warmup_folder: What `warm_up` wrote.
        config: Method and ratio.
        model_folder: Where the models, their histories and `run.json` are written.
        mask_folder: Where the first seed's mask and the trajectory of all seeds are written.

    Returns:
        Final figures, mean over the seeds: train_loss, validation_accuracy, samples; and keep_achieved of the mask.

    Raises:
        InputError: A warm-up of another data set, an unknown method, or one that lacks what it needs.
    """
    needs = find_method(config.method).needs
    table = open_table(dataset_folder)
    before = read_json(Path(warmup_folder) / WARMUP_FILE)
    table.check_digest(before["dataset"]["digest"], "warm-up")
    train_config = TrainConfig(**{**before["train_config"], "seeds": tuple(before["train_config"]["seeds"])})
    train_config.check_epochs(config.epochs)
    train, size = table.part("train"), before["architecture"]["image_size"]
    semantics, says = read_semantics(train, embedding_folders, config.semantics)
    store = CheckpointStore(
        model_folder, step="prune", data=table.info.digest, warmup=before, config=asdict(config), semantics=says
    )
    pruners, histories, extras = [], [], []
    whole = steady(train_config.deterministic)
    with writing(model_folder) as models, writing(mask_folder) as masks, whole:
        models.mkdir()
        for seed in train_config.seeds:
            work = Seed(table, train_config, size, seed)
            work.load_state_dict(load((Path(warmup_folder) / f"seed-{seed}.pt").read_bytes(), f"seed-{seed}.pt"))
            scout = Scout(train, train_config, config, size, seed, work.trainer.pictures)
            extra = find_once(scout, needs, store)
            ids = train.sample_id.tolist()
            pruner = Pruner(config, ids, train.label, seed=seed, semantics=semantics, scores=extra.scores)
            drive(Pruning(work, pruner, config), store)
            if config.retrain:
                fresh = Seed(table, train_config, size, seed, pictures=work.trainer.pictures)
                drive(Retraining(fresh, pruner, config, work.history), store)
                work = fresh
            save_seed(models / f"seed-{seed}", work)
            pruners.append(pruner)
            histories.append(work.history)
            extras.append(extra.cost)
        identity = run_identity(table, train_config, size)
        mask = write_pruned(masks, pruners, identity)
        found = [says["alarm"]] if says and "alarm" in says else []
        alarms = list(dict.fromkeys(found + [alarm for pruner in pruners for alarm in pruner.alarms]))
        outcome = {
            "method": config.method,
            "keep": config.keep,
            "keep_achieved": mask.meta["keep_achieved"],
            "prune_config": asdict(config),
            "seeds": list(train_config.seeds),
            "cost": mean_cost(histories, extras),
            "preliminary": mean_figures(extras, tuple(extras[0])),
            "semantics": says,
            "alarms": alarms,
        }
        write_json(models / RUN_FILE, identity | outcome)
    store.clear()
    for alarm in alarms:
        log.warning("%s", alarm)
    figures = mean_figures([h[-1] for h in histories], ("train_loss", "validation_accuracy", "samples"))
    return figures | {"keep_achieved": mask.meta["keep_achieved"]}


def write_pruned(folder: Path, pruners: Sequence[Pruner], identity: dict[str, Any]) -> Mask:
    """Write the first seed's mask, and the samples of every epoch of all seeds."""
    mask = pruners[0].mask(identity["dataset"])
    settings = {"train_config": identity["train_config"], "seeds": [pruner.seed for pruner in pruners]}
    mask = replace(mask, meta=mask.meta | settings)
    folder.mkdir()
    write_mask(folder, mask)
    write_trajectory(folder, [row for pruner in pruners for row in pruner.trajectory])
    return mask


def read_semantics(
    train: ImageTable, embedding_folders: Sequence[str | Path], source: str = "clip"
) -> tuple[Semantics | None, dict[str, Any] | None]:
    """Fit the label model to the training samples' embeddings; with it, figures for `run.json`.

    Where the CLIP does not fit the labels, neighbours and a probe take its place, and an alarm under "alarm" says so.

    Args:
        train: The training samples.
        embedding_folders: Embeddings of the table; none for no semantics.
        source: See `choose_label_model`.
    """
    if not embedding_folders:
        return None, None
    embeddings = open_embeddings(list(embedding_folders), train)
    key_N = sample_keys(train.sample_id.tolist())
    model, used, alarm = choose_label_model(embeddings.image_ND, embeddings.text_CD, train.label, key_N, source)
    figures = {
        "source": used,
        "temperature": model.temperature,
        "zero_shot_agreement": model.zero_shot_agreement,
        "expected_wrong": model.expected_wrong,
        "clip": embeddings.info["model"],
        "pretrained": embeddings.info["pretrained"],
        "weights": embeddings.info["weights"],
        "embed_precision": embeddings.info["precision"],
        "texts": content_key(texts=embeddings.info["prompts"]),
    }
    log.info(
        "%s agree with %.1f %% of the labels; at least %.1f %% are probably wrong",
        SAID.get(used, used),
        100 * model.zero_shot_agreement,
        100 * model.expected_wrong,
    )
    return Semantics.of(model), figures | ({"alarm": alarm} if alarm else {})


def run_identity(table: ImageTable, config: TrainConfig, size: int) -> dict[str, Any]:
    """What a run is made of, for its JSON file."""
    return {
        "dataset": {"name": table.info.name, "digest": table.info.digest},
        "classes": list(table.info.classes),
        "architecture": {"model": config.model, "image_size": size},
        "train_config": asdict(config) | {"seeds": list(config.seeds)},
        "versions": {
            "secateur": secateur.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "processes": place()[1],
            "device": pick_device().type,
        },
    }


def mean_figures(entries: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """Means over the seeds of those figures that are there."""
    return {n: float(np.mean([e[n] for e in entries])) for n in names if entries[0][n] is not None}


def mean_cost(histories: list[list[dict[str, Any]]], extras: list[dict[str, float]]) -> dict[str, float]:
    """What one seed cost on average, preliminary runs included: samples forward, backward, and seconds."""
    last, mean = [history[-1] for history in histories], mean_figures(extras, tuple(extras[0]))
    return {
        "forward_samples": int(np.mean([e["forward_samples"] for e in last]) + mean.get("forward_samples", 0)),
        "backward_samples": int(np.mean([e["samples"] for e in last]) + mean.get("backward_samples", 0)),
        "seconds": round(float(np.mean([e["seconds"] for e in last])) + mean.get("seconds", 0), 3),
    }


def save_seed(folder: Path, work: Seed) -> None:
    """Write a seed's weights and history."""
    folder.mkdir()
    save_model(work.trainer.network, str(folder / "weights.safetensors"))
    write_json(folder / "history.json", work.history)
