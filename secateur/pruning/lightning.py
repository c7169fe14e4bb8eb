"""The sampler inside a Lightning Trainer."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from secateur.errors import InputError
from secateur.pruning.sampler import PruningSampler


class PruningCallback(Callback):
    """Begins the sampler's epochs, tells it the validation loss, logs `kept`, and saves it in Lightning's checkpoints.

    The training DataLoader has the same sampler, and `training_step` returns what `sampler.update` gives. As epochs
    differ in length, the Trainer takes `reload_dataloaders_every_n_epochs=1`, and `use_distributed_sampler=False`: the
    sampler itself shares the samples out among processes.

        sampler = PruningSampler(labels, epochs=20, keep=0.5)
        loader = DataLoader(data, batch_size=128, sampler=sampler)
        trainer = Trainer(
            max_epochs=20,
            callbacks=[PruningCallback(sampler)],
            use_distributed_sampler=False,
            reload_dataloaders_every_n_epochs=1,
        )
        trainer.fit(module, loader)
    """

    def __init__(self, sampler: PruningSampler, validation_loss: str | None = None) -> None:
        """Bind the callback to a sampler.

        Args:
            sampler: Of the training DataLoader.
            validation_loss: Name under which the module logs it in validation, for the methods that need it.
        """
        self.sampler, self.validation_loss = sampler, validation_loss
        self.validated = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the Trainer, and choose the samples of the first epoch: Lightning is about to ask for their number.

        Raises:
            InputError: The Trainer would keep the number of batches of the first epoch.
        """
        every = trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]
        if every != 1:
            raise InputError(
                f"reload_dataloaders_every_n_epochs must be 1, as pruned epochs differ in length, got {every}"
            )
        if not self.sampler.pruner.trajectory:
            self.sampler.begin_epoch()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that Lightning has left the sampler in its place.

        Raises:
            InputError: The training DataLoader has another one.
        """
        found = getattr(trainer.train_dataloader, "sampler", None)
        if found is not self.sampler:
            raise InputError(
                "the training DataLoader must have the callback's sampler (and the Trainer "
                f"use_distributed_sampler=False), got {type(found).__name__}"
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the fraction of the samples in the epoch, as `kept`."""
        pruner = self.sampler.pruner
        pl_module.log("kept", pruner.trajectory[-1]["count"] / len(pruner.samples), on_step=False, on_epoch=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that there was a validation."""
        self.validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the validation loss, and choose the samples of the next epoch.

        Raises:
            InputError: There was a validation, and nothing of the given name was logged.
        """
        if self.validation_loss is not None:
            logged = trainer.callback_metrics
            if self.validation_loss in logged:
                self.sampler.validation_loss = float(logged[self.validation_loss])
            elif self.validated:
                raise InputError(f"validation_loss must be among {sorted(logged)}, got {self.validation_loss!r}")
        if self.sampler.epoch < self.sampler.pruner.config.epochs:
            self.sampler.begin_epoch()

    def state_dict(self) -> dict[str, Any]:
        """The sampler's state."""
        return self.sampler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the sampler."""
        self.sampler.load_state_dict(state_dict)
