import numpy as np
import pytest
import torch

from secateur.errors import InputError
from secateur.pruning.losses import SampleLosses, as_array


def test_moving_average_by_hand():
    losses = SampleLosses(4)
    losses.record([0, 2], [4.0, 1.0])
    losses.record(torch.tensor([2, 3]), torch.tensor([3.0, 8.0], requires_grad=True))
    losses.record([0], [2.0])
    losses.settle()
    assert losses.last_N[[0, 2, 3]].tolist() == [2, 3, 8]
    assert losses.mean_N[[0, 2, 3]].tolist() == [3, 2, 8]
    assert np.isnan(losses.mean_N[1])
    assert losses.visits_N.tolist() == [2, 0, 2, 1]
    assert losses.difficulty().tolist() == [3, 8, 2, 8]


def test_before_the_first_visit_all_are_alike():
    assert SampleLosses(3).difficulty().tolist() == [1, 1, 1]


def test_doubles_come_back_to_the_last_bit():
    assert as_array(torch.tensor([0.1], dtype=torch.float64)).tolist() == [0.1]


def test_bfloat16_losses_are_taken():
    losses = SampleLosses(1)
    losses.record(torch.tensor([0]), torch.tensor([0.5], dtype=torch.bfloat16))
    losses.settle()
    assert losses.last_N.tolist() == [0.5]


@pytest.mark.parametrize(
    ("index", "loss", "text"),
    [
        ([1], [float("nan")], "loss must be finite, got nan for sample 1"),
        ([0, 1], [0.0, float("inf")], "loss must be finite, got inf for sample 1"),
        ([2], [0.0], r"sample index must be in \[0, 1\], got 2"),
        ([-1], [0.0], r"sample index must be in \[0, 1\]"),
    ],
)
def test_losses_that_cannot_be_used(index, loss, text):
    losses = SampleLosses(2)
    losses.record(index, loss)
    with pytest.raises(InputError, match=text):
        losses.settle()


def test_a_saved_state_goes_on():
    one, other = SampleLosses(3), SampleLosses(3)
    one.record([0, 1], [1.0, 2.0])
    other.load_state_dict(one.state_dict())
    for losses in (one, other):
        losses.record([1, 2], [4.0, 5.0])
        losses.settle()
    assert np.array_equal(one.mean_N, other.mean_N)
    assert other.mean_N.tolist() == [1, 3, 5]
    with pytest.raises(InputError, match="saved losses must be of 4 samples, got 3"):
        SampleLosses(4).load_state_dict(one.state_dict())
