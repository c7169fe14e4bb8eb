"""Light adapters of image and text on a frozen CLIP, learned from the given labels in folds.

After the adapters of multimodal-guided dynamic pruning (arXiv 2507.12750), in the form of a residual (Gao et al.,
CLIP-Adapter, IJCV 2024): f' = unit(f + f A B) with A B of low rank, and t' = unit(t + u) with one u for each class.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from secateur.semantics.consistency import Labels, Singles
from secateur.streams import Keys, sample_keys, shuffled, stream_seed, uniform

RANK = 16
EPOCHS = 20
BATCH = 512
LEARNING_RATE = 1e-2
WEIGHT_DECAY = 1e-2


class Adapters(torch.nn.Module):
    """Both adapters; before they have learned, they change nothing."""

    def __init__(self, text_CD: Tensor, seed: int) -> None:
        super().__init__()
        width = text_CD.shape[1]
        draws = uniform(sample_keys(np.arange(width * RANK)), "adapters", seed) - 0.5
        self.text_CD = text_CD
        self.down_DR = torch.nn.Parameter(torch.from_numpy(draws.reshape(width, RANK)).float() * (12 / width) ** 0.5)
        self.up_RD = torch.nn.Parameter(torch.zeros(RANK, width))
        self.shift_CD = torch.nn.Parameter(torch.zeros_like(text_CD))

    def forward(self, image_BD: Tensor) -> Tensor:
        """Cosines of pictures and class texts, (B, C)."""
        adapted_BD = normalize(image_BD + image_BD @ self.down_DR @ self.up_RD, dim=1)
        return adapted_BD @ normalize(self.text_CD + self.shift_CD, dim=1).T


def adapted_similarity(
    image_ND: Singles,
    text_CD: Singles,
    label_N: Labels,
    fold_N: npt.NDArray[np.integer],
    temperature: float,
    key_N: Keys,
    weight_N: npt.NDArray[np.floating] | None = None,
) -> Singles:
    """Cosines of pictures and class texts behind adapters that never saw the picture's fold, float32 (N, C).

    They minimise InfoNCE (van den Oord et al., 2018) from picture to text, with the texts of the other classes as
    negatives: mean of w * -log softmax(temperature * cosines)[y].

    Args:
        image_ND: Unit vectors of the pictures.
        text_CD: Unit vectors of the class texts.
        label_N: Given labels, in [0, C).
        fold_N: Of each sample; see `secateur.semantics.probe.draw_folds`, which keeps copies together.
        temperature: Factor of the cosines, as fitted for the CLIP without adapters.
        key_N: Of the samples, for the order in which they are seen.
        weight_N: How much each sample counts in learning, in [0, 1]; None for all alike.
    """
    weight_N = np.ones(len(label_N)) if weight_N is None else weight_N
    pictures, given = torch.from_numpy(image_ND), torch.from_numpy(label_N.astype(np.int64))
    weights = torch.from_numpy(weight_N.astype(np.float32))
    similarity_NC = np.empty((len(label_N), len(text_CD)), dtype=np.float32)
    for fold in np.unique(fold_N):
        seen = np.flatnonzero(fold_N != fold)
        adapters = Adapters(torch.from_numpy(text_CD), stream_seed("adapters", int(fold)))
        learn(adapters, pictures[seen], given[seen], weights[seen], temperature, key_N[seen])
        held_out = np.flatnonzero(fold_N == fold)
        with torch.no_grad():
            similarity_NC[held_out] = adapters(pictures[held_out]).numpy()
    return similarity_NC


def learn(
    adapters: Adapters, image_ND: Tensor, label_N: Tensor, weight_N: Tensor, temperature: float, key_N: Keys
) -> None:
    """Train adapters, with AdamW and a one-cycle schedule."""
    batches = max(1, len(image_ND) // BATCH)
    optimizer = torch.optim.AdamW(adapters.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=EPOCHS * batches)
    for epoch in range(EPOCHS):
        for batch in np.array_split(shuffled(key_N, "adapters", epoch), batches):
            log_p_BC = torch.log_softmax(temperature * adapters(image_ND[batch]), dim=1)
            loss = -(weight_N[batch] * log_p_BC.gather(1, label_N[batch, None])[:, 0]).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
