"""The samples that are hardest, by four measures of that."""

from secateur.pruning.baselines.static import Highest
from secateur.pruning.method import Method, Progress, Samples, Selection, Verdict, explain
from secateur.pruning.selection import Values, top


class Hardest(Method):
    """The largest moving-average losses of the moment."""

    summary = "the samples with the highest loss, anew every epoch"
    paper = "online hard example mining, arXiv 1604.03540, over the whole data set"

    def select(self, samples: Samples, progress: Progress) -> Selection:
        """The top of the losses; what was never visited counts as hardest."""
        return Selection(top(samples.losses.difficulty(), self.count(samples), samples.key_N))

    def verdict(self, samples: Samples, selection: Selection) -> Verdict:
        """The last choice, with the losses."""
        loss_N = samples.losses.difficulty()
        return Verdict(selection.active_N, loss_N, explain(selection.active_N, loss_N))


class El2n(Highest):
    """The largest errors early in training."""

    summary = "the samples with the largest error vectors early in training, chosen once"
    paper = "EL2N, arXiv 2107.07075"
    cost = "ten networks trained for a tenth of the epochs first"
    needs = ("el2n",)

    def score(self, samples: Samples) -> Values:
        """EL2N of the preliminary networks, in [0, sqrt(2)]."""
        return samples.scores["el2n"]


class Forgetting(Highest):
    """The samples that are learned and forgotten most often."""

    summary = "the samples that a network forgets most often, chosen once"
    paper = "forgetting events, arXiv 1812.05159"
    cost = "a whole training run first"
    needs = ("forgetting",)

    def score(self, samples: Samples) -> Values:
        """Number of forgetting events of a preliminary run."""
        return samples.scores["forgetting"]


class Proxy(Method):
    """What is hardest to a small network that goes first over the same augmented pictures."""

    summary = "in every batch the highest losses of a small network that goes first over the same augmented pictures"
    paper = "the proxy filter of cifar10-airbench, arXiv 2404.00498"
    cost = "a small network trained alongside, forward over all samples of every epoch"
    needs = ("proxy",)

    def select(self, samples: Samples, progress: Progress) -> Selection:
        """The epoch's marks; past the last epoch that has some, those of the last."""
        marks_EN = samples.scores["proxy"]
        return Selection(marks_EN[min(progress.epoch, len(marks_EN) - 1)])
