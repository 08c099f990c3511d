import math

import numpy as np
import pytest
from sklearn import metrics

from metier.evaluation.measures import brier, macro_f1, matthews, mean, ratio, roc_auc
from metier.evaluation.statistics import draw_weights

GENERATOR = np.random.default_rng(8)
LABELS = ["a", "b", "c"]
GOLD = [LABELS[index] for index in GENERATOR.integers(0, 3, 60)]
SAID = [gold if GENERATOR.random() < 0.6 else LABELS[GENERATOR.integers(0, 3)] for gold in GOLD]
RAW = GENERATOR.dirichlet([1, 1, 1], 60).round(2) + 0.001
PROBABILITIES = (RAW / RAW.sum(axis=1, keepdims=True)).tolist()
PLACES = [LABELS.index(gold) for gold in GOLD]


def test_macro_f1_equals_sklearn():
    assert macro_f1(GOLD, SAID).point() == pytest.approx(metrics.f1_score(GOLD, SAID, average="macro"))


def test_free_text_predictions_make_no_class_of_their_own():
    said = ["nonsense", *SAID[1:]]
    assert macro_f1(GOLD, said).point() == pytest.approx(metrics.f1_score(GOLD, said, labels=LABELS, average="macro"))


def test_matthews_equals_sklearn():
    assert matthews(GOLD, SAID).point() == pytest.approx(metrics.matthews_corrcoef(GOLD, SAID))
    assert matthews(["a", "a"], ["a", "a"]).point() == 0.0


def test_roc_auc_equals_sklearn_one_against_the_rest_with_ties():
    rounded = np.round(PROBABILITIES, 1) + 1e-3
    rounded = (rounded / rounded.sum(axis=1, keepdims=True)).tolist()
    for scores in (PROBABILITIES, rounded):
        ours = roc_auc(scores, PLACES, [("a", "b", "c")] * 60).point()
        assert ours == pytest.approx(metrics.roc_auc_score(PLACES, scores, multi_class="ovr", average="macro"))


def test_roc_auc_of_two_choices_is_the_usual_one():
    truth = [index % 2 for index in range(40)]
    scores = [[1 - value, value] for value in GENERATOR.random(40)]
    assert roc_auc(scores, truth, [("no", "yes")] * 40).point() == pytest.approx(metrics.roc_auc_score(truth, [row[1] for row in scores]))


def test_roc_auc_compares_items_of_the_same_choices_only():
    # Each language alone is at 0.5 (tied); a pooled curve over eight labels would call that far better.
    choices = [("热", "冷")] * 4 + [("hot", "cold")] * 4
    assert roc_auc([[0.5, 0.5]] * 8, [0, 1] * 4, choices).point() == 0.5


def test_brier_equals_sklearn_for_two_choices():
    truth = [index % 2 for index in range(40)]
    scores = [[1 - value, value] for value in GENERATOR.random(40)]
    assert brier(scores, truth).point() == pytest.approx(2 * metrics.brier_score_loss(truth, [row[1] for row in scores]))


def test_a_mean_leaves_out_items_without_a_value_and_a_ratio_weighs_by_the_denominator():
    assert mean([1.0, math.nan, 0.0]).point() == 0.5
    assert ratio([1, 0, 3], [2, 0, 3]).point() == pytest.approx(4 / 5)
    assert math.isnan(ratio([0], [0]).point())


@pytest.mark.parametrize("kind", ["f1", "mcc", "auc"])
def test_a_weighted_statistic_is_the_plain_one_on_the_drawn_items(kind: str):
    choices = [("a", "b", "c")] * 60
    measure = {"f1": macro_f1(GOLD, SAID), "mcc": matthews(GOLD, SAID), "auc": roc_auc(PROBABILITIES, PLACES, choices)}[kind]
    weights = draw_weights(["x"] * 60, 5, seed=2)
    drawn = measure.statistic(weights)
    for row, value in zip(weights, drawn, strict=True):
        picked = [index for index, count in enumerate(row) for _ in range(int(count))]
        gold, said = [GOLD[index] for index in picked], [SAID[index] for index in picked]
        expected = {
            "f1": lambda gold=gold, said=said: metrics.f1_score(gold, said, average="macro"),
            "mcc": lambda gold=gold, said=said: metrics.matthews_corrcoef(gold, said),
            "auc": lambda picked=picked: metrics.roc_auc_score([PLACES[i] for i in picked], [PROBABILITIES[i] for i in picked], multi_class="ovr"),
        }[kind]()
        assert value == pytest.approx(expected)
