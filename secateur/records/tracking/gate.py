"""Whether a candidate becomes the champion: rules that the user sets, and a decision with its reasons."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from secateur.records.config import PublishConfig


@dataclass(frozen=True)
class Card:
    """What a model is judged by, and what a later candidate is compared with."""

    test_digest: str  # of the ids and labels of the test split
    accuracy: float  # on it, in [0, 1], mean over the seeds
    per_class: Mapping[str, float | None]  # the same by class, of the first seed; None: no test sample
    cost: int  # samples trained on, mean over the seeds
    recall: float | None  # fraction of the wrong labels that the mask found; None where the true ones are not known


@dataclass(frozen=True)
class Decision:
    """What became of a candidate, and why."""

    promoted: bool
    reasons: tuple[str, ...]  # sentences; of a refusal every rule that is broken

    @property
    def sentence(self) -> str:
        """The decision in one line."""
        return f"{'became champion' if self.promoted else 'stays candidate'}: {'; '.join(self.reasons)}"


def make_card(figures: Mapping[str, Any], test_digest: str) -> Card:
    """The card of the pruned arm.

    Args:
        figures: What `results.json` says.
        test_digest: What `test_digest` of `secateur.records.outputs` gave.
    """
    pruned, noise = figures["arms"][0], figures.get("noise") or {}
    classes = figures["dataset"].get("classes", ())
    return Card(
        test_digest=test_digest,
        accuracy=pruned["accuracy_mean"],
        per_class=dict(zip(classes, figures.get("per_class", ()), strict=True)) if figures.get("per_class") else {},
        cost=pruned["backward_samples"],
        recall=noise.get("recall"),
    )


def decide(
    rules: PublishConfig, candidate: Card, champion: Card | None, *, comparable: bool = True, rival: bool = False
) -> Decision:
    """Let a candidate pass or not.

    Args:
        rules: The fields that begin with `promote`.
        candidate: The new model.
        champion: The one in its place; None where there is none, or where nothing is known of it.
        comparable: False where there is a champion of which nothing is known.
        rival: The champion became so only now, as another candidate at the same time; to pass, one has to be better.
    """
    broken = list(absolute(rules, candidate))
    beside = ""
    if champion is not None and champion.test_digest == candidate.test_digest:
        broken += relative(rules, candidate, champion)
        beside = f", the champion's is {champion.accuracy:.1%}"
    elif (champion is not None or not comparable) and not rules.promote_untested:
        other = "another test split" if champion is not None else "nothing known"
        broken.append(f"the champion was judged on {other}, so the two cannot be compared (see promote_untested)")
    if rival and not (champion and champion.test_digest == candidate.test_digest and better(candidate, champion)):
        broken.append("another candidate became champion at the same time, and this one is not known to be better")
    if broken:
        return Decision(False, tuple(broken))
    first = "; there was no champion" if champion is None and comparable else ""
    return Decision(True, (f"test accuracy is {candidate.accuracy:.1%}{beside}{first}",))


def absolute(rules: PublishConfig, candidate: Card) -> Iterator[str]:
    """What is wrong with a candidate by itself."""
    if candidate.accuracy < rules.promote_accuracy:
        yield f"test accuracy is {candidate.accuracy:.1%}, below {rules.promote_accuracy:.1%}"
    if rules.promote_recall and (candidate.recall is None or candidate.recall < rules.promote_recall):
        found = "not known" if candidate.recall is None else f"{candidate.recall:.1%}"
        yield f"the fraction of wrong labels found is {found}, below {rules.promote_recall:.1%}"


def relative(rules: PublishConfig, candidate: Card, champion: Card) -> Iterator[str]:
    """What is wrong with a candidate beside the champion, judged on the same test split."""
    loss = champion.accuracy - candidate.accuracy
    if exceeds(loss, rules.promote_loss):
        yield (
            f"test accuracy is {candidate.accuracy:.1%}, {100 * loss:.1f} points below the champion's, "
            f"more than {100 * rules.promote_loss:.1f}"
        )
    drops = {
        name: before - after
        for name, before in champion.per_class.items()
        if before is not None and (after := candidate.per_class.get(name)) is not None
    }
    worst = max(drops, key=lambda name: drops[name], default=None)
    if worst is not None and exceeds(drops[worst], rules.promote_class_loss):
        yield (
            f"accuracy on class {worst!r} is {100 * drops[worst]:.1f} points below the champion's, "
            f"more than {100 * rules.promote_class_loss:.1f}"
        )
    if rules.promote_cost and candidate.cost > rules.promote_cost * champion.cost:
        ratio = candidate.cost / max(1, champion.cost)
        yield f"it trained on {ratio:.2f} times as many samples as the champion, more than {rules.promote_cost:g}"


def better(candidate: Card, champion: Card) -> bool:
    """Whether test accuracy is higher, by more than rounding."""
    return exceeds(candidate.accuracy - champion.accuracy, 0.0)


def exceeds(loss: float, limit: float) -> bool:
    """Whether a loss is above a limit, but for rounding."""
    return loss > limit + 1e-9
