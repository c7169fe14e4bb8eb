"""Tasks without pictures: a table and texts, with wrong labels, each with a loop of its own."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from secateur import PruningSampler
from secateur.pruning.method import Semantics
from secateur.semantics.neighbours import fit_neighbours

EPOCHS = 12


def spoiled(true_N, rate, classes):
    rng = np.random.default_rng(0)
    wrong_N = rng.random(len(true_N)) < rate
    return np.where(wrong_N, (true_N + rng.integers(1, classes, len(true_N))) % classes, true_N), wrong_N


def train(model, inputs, label_N, sampler, rate=0.01):
    loader = DataLoader(
        TensorDataset(torch.arange(len(label_N)), inputs, torch.from_numpy(label_N)), 32, sampler=sampler
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(EPOCHS):
        for index, x, y in loader:
            logits = model(x)
            loss = sampler.update(index, functional.cross_entropy(logits, y, reduction="none"), logits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return sampler.mask()


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def test_a_table_whose_wrong_labels_its_neighbours_give_away():
    x_ND, true_N = load_breast_cancer(return_X_y=True)
    x_ND = ((x_ND - x_ND.mean(0)) / x_ND.std(0)).astype(np.float32)
    label_N, wrong_N = spoiled(true_N, 0.2, 2)
    says = fit_neighbours(x_ND, label_N)
    semantics = Semantics(
        says.consistency_N.astype(np.float32),
        says.label_probability_N.astype(np.float32),
        says.suggested_N,
        says.posterior_NC,
        says.probability_NC,
        says.fits,
    )
    accuracy, masks = {}, {}
    for method in ("multimodal", "hardest"):
        model = seeded(lambda: nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 2)))
        sampler = PruningSampler(label_N, epochs=EPOCHS, warmup_epochs=3, keep=0.6, method=method, semantics=semantics)
        masks[method] = train(model, torch.from_numpy(x_ND), label_N, sampler)
        accuracy[method] = float((model(torch.from_numpy(x_ND)).argmax(1).numpy() == true_N).mean())
    assert masks["multimodal"].kept.mean() == pytest.approx(0.6, abs=0.001)
    assert wrong_N[masks["multimodal"].kept].mean() < 0.05
    assert wrong_N[masks["hardest"].kept].mean() > 0.25
    assert accuracy["multimodal"] > max(0.93, accuracy["hardest"] + 0.02)


TOPICS = ["river fish boat water shore", "engine wheel road brake fuel", "flour oven sugar bread yeast"]
WIDTH = 512


def corpus(samples=600):
    """Sentences of made-up inflections of a topic's words among those of all topics, as bags of hashed trigrams."""
    rng = np.random.default_rng(1)
    words = [topic.split() for topic in TOPICS]
    true_N = rng.integers(0, 3, samples)
    gram_NL = np.zeros((samples, 64), dtype=np.int64)
    for i, topic in enumerate(true_N):
        chosen = [words[topic if rng.random() < 0.7 else rng.integers(3)][rng.integers(5)] for _ in range(7)]
        text = " ".join(word + rng.choice(["", "s", "ing", "ed"]) for word in chosen)
        grams = [int.from_bytes(text[k : k + 3].encode(), "big") % (WIDTH - 1) + 1 for k in range(len(text) - 2)][:64]
        gram_NL[i, : len(grams)] = grams
    return torch.from_numpy(gram_NL), true_N


def test_texts_without_semantics():
    gram_NL, true_N = corpus()
    label_N, wrong_N = spoiled(true_N, 0.15, 3)

    def make():
        return nn.Sequential(nn.EmbeddingBag(WIDTH, 16, mode="mean", padding_idx=0), nn.Linear(16, 3))

    model = seeded(make)
    sampler = PruningSampler(
        label_N, epochs=EPOCHS, warmup_epochs=4, keep=0.6, method="adaptive", selection_weight=0.0, class_floor=0.5
    )
    mask = train(model, gram_NL, label_N, sampler, rate=0.02)
    assert mask.kept.sum() == 360
    # Pressure of the loss alone pushes what is hard out, and with it the wrong labels.
    assert wrong_N[mask.kept].mean() < 0.5 * wrong_N.mean()
    assert roc_auc_score(wrong_N, -mask.score) > 0.85
    assert float((model(gram_NL).argmax(1).numpy() == true_N).mean()) > 0.9
