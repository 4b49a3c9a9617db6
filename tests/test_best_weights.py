"""The best weights of a run stay, whatever comes after them."""

import numpy as np
import pytest
from training import reading_weights

from robustscanner_jax.best_weights import FILE, keep_best
from robustscanner_jax.metrics import score_set
from robustscanner_jax.weights import Weights, load_weights


def scores(*shares, names=("one", "other")):
    """Returns sets of 100 words each, of which these many are right."""
    return [
        score_set(
            name, ["a"] * right + ["b"] * (100 - right), ["a"] * 100, [0.5] * 100, "36"
        )
        for name, right in zip(names, shares, strict=True)
    ]


def weights_of(step) -> Weights:
    weights = reading_weights()
    variables = dict(weights.variables)
    classifier = dict(variables["params"]["classifier"])
    classifier["bias"] = np.full_like(classifier["bias"], step)
    variables["params"] = variables["params"] | {"classifier": classifier}
    return Weights(
        weights.model, variables, weights.charset, weights.preprocessing, {"step": step}
    )


def kept_step(folder):
    found = load_weights(folder / FILE)
    np.testing.assert_array_equal(
        found.variables["params"]["classifier"]["bias"], found.card["step"]
    )
    return found.card["step"]


def test_the_mean_over_the_sets_decides_and_the_earlier_of_equals_stays(tmp_path):
    evaluations = [(50, 60), (90, 10), (70, 45), (60, 55), (20, 20), (80, 80), (70, 70)]
    for step, shares in enumerate(evaluations, start=1):
        keep_best(tmp_path, weights_of(step), scores(*shares), "36")
        kept = kept_step(tmp_path)
        means = [sum(shares) for shares in evaluations[:step]]
        assert kept == 1 + means.index(max(means))
    card = load_weights(tmp_path / FILE).card
    assert card["mean_accuracy"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("names", "protocol"), [(("one", "third"), "36"), (("one", "other"), "exact")]
)
def test_what_another_choice_kept_is_replaced(tmp_path, names, protocol):
    assert keep_best(tmp_path, weights_of(1), scores(90, 90), "36")
    assert keep_best(tmp_path, weights_of(2), scores(10, 10, names=names), protocol)
    assert kept_step(tmp_path) == 2


def test_a_damaged_file_is_replaced(tmp_path):
    keep_best(tmp_path, weights_of(1), scores(90, 90), "36")
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:100])
    assert keep_best(tmp_path, weights_of(2), scores(10, 10), "36")
    assert kept_step(tmp_path) == 2
