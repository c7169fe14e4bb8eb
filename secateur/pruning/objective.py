"""From the losses of a batch to the one number to go backward from."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.errors import InputError
from secateur.pruning.method import Method, Selection
from secateur.pruning.pruner import Pruner


class Objective:
    """Notes the plain losses of each batch, and weighs them as the method says.

    Weights and soft labels of the epoch are moved to the device of the losses once.
    """

    def __init__(self, pruner: Pruner) -> None:
        self.pruner = pruner
        self.steps = type(pruner.method).step is not Method.step
        self._of: Selection | None = None
        self._held: dict[str, Tensor] = {}

    def __call__(self, index_B: Any, loss_B: Tensor, logits_BC: Tensor | None = None) -> Tensor:
        """The mean of weight times loss.

        Args:
            index_B: Positions of the samples, int (B,).
            loss_B: Their plain losses, float (B,), with gradient.
            logits_BC: Their logits, float (B, C), with gradient; for methods that train towards soft labels.

        Raises:
            InputError: The method relabels and there are no logits.
        """
        self.pruner.record(index_B, loss_B)
        chosen = self.pruner.selection
        if chosen is None:
            return loss_B.mean()
        weight_B = self._weight(chosen, index_B, loss_B)
        if chosen.relabelled_N is not None:
            loss_B = self._relabelled(chosen, index_B, loss_B, logits_BC)
        return loss_B.mean() if weight_B is None else (loss_B * weight_B).mean()

    def _weight(self, chosen: Selection, index_B: Any, loss_B: Tensor) -> Tensor | None:
        if self.steps:
            plain_B = loss_B.detach().float().cpu().numpy()
            weight_B = self.pruner.method.step(torch.as_tensor(index_B).cpu().numpy(), plain_B)
            if weight_B is not None:
                return torch.from_numpy(weight_B).to(loss_B.device)
        if chosen.weight_N is None:
            return None
        return self._on_device(chosen, "weight", chosen.weight_N, loss_B)[self._index(index_B, loss_B)]

    def _relabelled(self, chosen: Selection, index_B: Any, loss_B: Tensor, logits_BC: Tensor | None) -> Tensor:
        """Cross-entropy with the soft label instead of the given one, for the samples that are relabelled."""
        semantics = self.pruner.samples.semantics
        if logits_BC is None or semantics is None or semantics.posterior_NC is None:
            missing = "logits" if logits_BC is None else "soft labels in its semantics"
            raise InputError(f"method {self.pruner.config.method!r} must have {missing} to relabel, got none")
        index_B = self._index(index_B, loss_B)
        assert chosen.relabelled_N is not None
        target_BC = self._on_device(chosen, "target", semantics.posterior_NC, loss_B)[index_B].float()
        soft_B = -(target_BC * logits_BC.float().log_softmax(1)).sum(1)
        return torch.where(self._on_device(chosen, "relabelled", chosen.relabelled_N, loss_B)[index_B], soft_B, loss_B)

    def _on_device(self, chosen: Selection, name: str, values: np.ndarray[Any, Any], loss_B: Tensor) -> Tensor:
        if self._of is not chosen:
            self._of = chosen
            self._held = {k: v for k, v in self._held.items() if k == "target"}
        held = self._held.get(name)
        if held is None or held.device != loss_B.device:
            held = self._held[name] = torch.from_numpy(values).to(loss_B.device)
        return held

    @staticmethod
    def _index(index_B: Any, loss_B: Tensor) -> Tensor:
        return torch.as_tensor(index_B).to(loss_B.device)
