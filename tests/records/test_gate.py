from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.errors import InputError
from secateur.records.config import PublishConfig
from secateur.records.tracking.gate import Card, Decision, decide, make_card

CHAMPION = Card("t" * 64, accuracy=0.9, per_class={"cat": 0.8, "dog": 1.0, "owl": None}, cost=1000, recall=0.7)
fraction = st.floats(0, 1)


def cards() -> st.SearchStrategy[Card]:
    per_class = st.dictionaries(st.sampled_from(["cat", "dog", "owl"]), st.none() | fraction)
    return st.builds(
        Card,
        test_digest=st.sampled_from(["one", "other"]),
        accuracy=fraction,
        per_class=per_class,
        cost=st.integers(1, 2000),
        recall=st.none() | fraction,
    )


def rules() -> st.SearchStrategy[PublishConfig]:
    return st.builds(
        PublishConfig,
        model_name=st.just(""),
        promote_accuracy=fraction,
        promote_loss=fraction,
        promote_class_loss=fraction,
        promote_cost=st.floats(0, 3),
        promote_recall=fraction,
        promote_untested=st.booleans(),
    )


def passes(rule: PublishConfig, new: Card, old: Card | None) -> bool:
    """The rules once more, one after the other, as their sentences say."""
    if new.accuracy < rule.promote_accuracy:
        return False
    if rule.promote_recall > 0 and (new.recall or 0.0) < rule.promote_recall:
        return False
    if old is None:
        return True
    if old.test_digest != new.test_digest:
        return rule.promote_untested
    for name in set(old.per_class) & set(new.per_class):
        before, after = old.per_class[name], new.per_class[name]
        if before is not None and after is not None and before - after > rule.promote_class_loss + 1e-9:
            return False
    cheap = rule.promote_cost == 0 or new.cost <= rule.promote_cost * old.cost
    return cheap and old.accuracy - new.accuracy <= rule.promote_loss + 1e-9


@given(rules(), cards(), st.none() | cards())
def test_a_candidate_passes_if_and_only_if_no_rule_is_broken(rule: PublishConfig, new: Card, old: Card | None) -> None:
    decision = decide(rule, new, old)
    assert decision.promoted == passes(rule, new, old)
    assert decision.reasons


@given(rules(), cards(), cards())
def test_who_became_champion_at_the_same_time_gives_way_to_a_better_one_only(
    rule: PublishConfig, new: Card, old: Card
) -> None:
    known = old.test_digest == new.test_digest and new.accuracy > old.accuracy + 1e-9
    assert decide(rule, new, old, rival=True).promoted == (passes(rule, new, old) and known)


@given(rules(), cards(), cards(), fraction)
def test_a_better_candidate_never_fares_worse(rule: PublishConfig, new: Card, old: Card, more: float) -> None:
    better = replace(new, accuracy=max(new.accuracy, more), cost=new.cost // 2)
    assert decide(rule, better, old).promoted or not decide(rule, new, old).promoted


@pytest.mark.parametrize(
    ("rule", "change", "reason"),
    [
        ({"promote_accuracy": 0.95}, {}, "test accuracy is 90.0%, below 95.0%"),
        ({}, {"accuracy": 0.88}, "2.0 points below the champion's, more than 1.0"),
        ({}, {"per_class": {"cat": 0.69, "dog": 1.0}}, "accuracy on class 'cat' is 11.0 points below"),
        ({"promote_cost": 0.5}, {"cost": 600}, "0.60 times as many samples as the champion, more than 0.5"),
        ({"promote_recall": 0.8}, {}, "wrong labels found is 70.0%, below 80.0%"),
        ({"promote_recall": 0.8}, {"recall": None}, "wrong labels found is not known, below 80.0%"),
        ({}, {"test_digest": "u" * 64}, "judged on another test split, so the two cannot be compared"),
    ],
)
def test_each_rule_says_why(rule: dict[str, float], change: dict[str, object], reason: str) -> None:
    decision = decide(PublishConfig(**rule), replace(CHAMPION, **change), CHAMPION)  # type: ignore[arg-type]
    assert not decision.promoted
    assert len(decision.reasons) == 1
    assert reason in decision.reasons[0]
    assert decision.sentence == f"stays candidate: {decision.reasons[0]}"


def test_all_broken_rules_are_named() -> None:
    decision = decide(PublishConfig(promote_cost=1), replace(CHAMPION, accuracy=0.1, cost=1001), CHAMPION)
    assert len(decision.reasons) == 2


def test_the_first_is_judged_by_itself_alone() -> None:
    assert decide(PublishConfig(), replace(CHAMPION, accuracy=0.0), None) == Decision(
        True, ("test accuracy is 0.0%; there was no champion",)
    )
    assert not decide(PublishConfig(promote_accuracy=0.5), replace(CHAMPION, accuracy=0.4), None).promoted


def test_a_champion_of_which_nothing_is_known_stays_unless_the_user_says_otherwise() -> None:
    assert not decide(PublishConfig(), CHAMPION, None, comparable=False).promoted
    assert decide(PublishConfig(promote_untested=True), CHAMPION, None, comparable=False).promoted


def test_a_card_holds_what_the_evaluation_measured() -> None:
    figures = {
        "dataset": {"classes": ["cat", "dog"]},
        "per_class": [0.5, None],
        "arms": [{"accuracy_mean": 0.75, "backward_samples": 12}],
        "noise": None,
    }
    assert make_card(figures, "d") == Card("d", 0.75, {"cat": 0.5, "dog": None}, 12, None)


@pytest.mark.parametrize("name", ["promote_accuracy", "promote_loss", "promote_class_loss", "promote_recall"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_rules_out_of_range_are_said(name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"{name} must be in \[0, 1\], got"):
        PublishConfig(**{name: value})
    with pytest.raises(InputError, match="promote_cost must be 0 or more, got"):
        PublishConfig(promote_cost=float("nan"))
