import warnings

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from secateur import InputError, PruningSampler

with warnings.catch_warnings():  # what Lightning's own imports say
    warnings.simplefilter("ignore")
    lightning = pytest.importorskip("lightning.pytorch")
from lightning.pytorch.callbacks import ModelCheckpoint

from secateur.pruning.lightning import PruningCallback

pytestmark = [
    # Lightning uses a name that PyTorch deprecates, speaks of loaders with few workers, few batches or a
    # folder in use, and takes the loader for one without a state, which is in the callback.
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]
EPOCHS, BATCH = 6, 20
INPUTS = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
LABELS = (INPUTS.sum(1) > 0).long()


class Module(lightning.LightningModule):
    def __init__(self, sampler, stop_at=None):
        super().__init__()
        self.sampler, self.stop_at, self.epochs, self.validations = sampler, stop_at, {}, []
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = torch.nn.Linear(5, 2)

    def training_step(self, batch, batch_idx):
        if self.global_step == self.stop_at:
            raise KeyError("the power went")
        index, x, y = batch
        self.epochs.setdefault(self.current_epoch, []).append(index.tolist())
        return self.sampler.update(index, functional.cross_entropy(self.model(x), y, reduction="none"))

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", functional.cross_entropy(self.model(batch[1]), batch[2]))

    def on_validation_epoch_end(self):
        if not self.trainer.sanity_checking:
            self.validations.append(self.current_epoch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)


def fit(folder, stop_at=None, ckpt_path=None, workers=0, trainer_settings=None, warmup=1, **checkpoint):
    sampler = PruningSampler(LABELS, epochs=EPOCHS, warmup_epochs=warmup, keep=0.4, method="adaptive", ramp=0.2)
    data = TensorDataset(torch.arange(200), INPUTS, LABELS)
    loader = DataLoader(data, BATCH, sampler=sampler, num_workers=workers, persistent_workers=workers > 0)
    module = Module(sampler, stop_at)
    saver = ModelCheckpoint(folder, save_top_k=-1, filename="{epoch}-{step}", **checkpoint)
    settings = {"use_distributed_sampler": False, "reload_dataloaders_every_n_epochs": 1} | (trainer_settings or {})
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        callbacks=[PruningCallback(sampler, "val_loss"), saver],
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        **settings,
    )
    try:
        trainer.fit(module, loader, DataLoader(data, 100), ckpt_path=ckpt_path)
    except KeyError:
        assert stop_at is not None
    return module, sampler, trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("whole"))


def test_a_trainer_runs_pruned_epochs(whole):
    module, sampler, trainer = whole
    assert list(module.epochs) == list(range(EPOCHS))
    seen = [np.concatenate(batches) for batches in module.epochs.values()]
    assert len(seen[0]) == 200
    assert len(seen[-1]) == 80
    assert all(len(np.unique(part)) == len(part) for part in seen)
    counts = [row["count"] for row in sampler.pruner.trajectory]
    assert [len(part) for part in seen] == counts
    assert module.validations == list(range(EPOCHS))
    assert trainer.callback_metrics["kept"] == pytest.approx(0.4)
    assert sampler.pruner.method.pace.best < 0.7
    assert sampler.mask().kept.sum() == 80


IN_EPOCH = {"every_n_train_steps": 1}
VALIDATED = {"every_n_epochs": 1, "save_on_train_epoch_end": False}
ENDED = {"every_n_epochs": 1, "save_on_train_epoch_end": True}


@pytest.mark.parametrize(
    ("saved", "stop_at", "workers"), [(IN_EPOCH, 4, 0), (IN_EPOCH, 17, 2), (VALIDATED, 17, 0), (ENDED, 17, 0)]
)
def test_a_killed_run_goes_on_and_ends_the_same(whole, tmp_path, saved, stop_at, workers):
    fit(tmp_path, stop_at=stop_at, workers=workers, **saved)
    checkpoints = sorted(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    second, sampler, trainer = fit(tmp_path, ckpt_path=checkpoints[-1], **saved)
    module = whole[0]
    start = int(checkpoints[-1].stem.split("step=")[1])
    flat = [batch for batches in module.epochs.values() for batch in batches]
    assert [batch for batches in second.epochs.values() for batch in batches] == flat[start:]
    assert sampler.mask().digest == whole[1].mask().digest
    assert torch.equal(second.model.weight, module.model.weight)
    assert second.validations == [epoch for epoch in range(EPOCHS) if epoch in second.validations]
    assert second.validations[-1] == EPOCHS - 1
    assert trainer.current_epoch == EPOCHS


def test_without_a_warm_up_lightning_knows_the_length_of_the_first_epoch(tmp_path):
    module, _, _ = fit(tmp_path, warmup=0)
    assert module.validations == list(range(EPOCHS))


def test_wrong_use(tmp_path):
    with pytest.raises(InputError, match=r"reload_dataloaders_every_n_epochs must be 1, .*, got 0"):
        fit(tmp_path, trainer_settings={"reload_dataloaders_every_n_epochs": 0})
    sampler = PruningSampler(LABELS, epochs=EPOCHS)
    callback = PruningCallback(sampler)

    class Trainer:
        train_dataloader = DataLoader(LABELS, sampler=DistributedSampler(LABELS, 2, 0))

    with pytest.raises(InputError, match=r"use_distributed_sampler=False\), got DistributedSampler"):
        callback.on_train_start(Trainer(), None)
