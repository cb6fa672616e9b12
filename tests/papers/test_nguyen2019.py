"""Theorems 3 and 4 and the gradients run again: their parts do what they say."""

import numpy as np
import pytest

from shoal import papers
from shoal.generative import Rademacher, SparseCoding, orthonormal_union, random_dictionary
from shoal.papers.nguyen2019 import gradients, theorem3, theorem4
from shoal.vocabulary import ArgumentError

TINY = {
    "nguyen2019/gradients": {"n": 12, "m": 10, "m_mixture": 3, "k": 2, "n_samples": (100, 200)},
    "nguyen2019/theorem3": {
        "n": (10,),
        "k": (2,),
        "delta": (0.2,),
        "n_mixture": (9,),
        "n_hadamard": 16,
    },
    "nguyen2019/theorem4": {
        "n": 12,
        "m": 14,
        "k": 2,
        "n_mixture": 10,
        "m_mixture": 3,
        "steps": (0.7,),
        "n_plateau": (6,),
        "k_plateau": (2,),
        "n_orthonormal": 8,
        "k_orthonormal": (2,),
        "k_sizes": (2, 5),
        "m_sizes": (20, 80),
        "n_relu": 9,
        "m_relu": 5,
        "n_steps": 3,
        "n_samples": 200,
    },
}


def tiny(name, **changes):
    return papers.reproduce(name, "smoke", **TINY[name] | changes)


@pytest.mark.parametrize("name", TINY)
def test_odd_sizes_run_and_the_seed_decides(name):
    first, again, other = tiny(name), tiny(name), tiny(name, seed=5)
    assert first["verdicts"]
    assert first["numbers"] == again["numbers"] != other["numbers"]


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("nguyen2019/gradients", {"n_samples": 10}, "^n_samples: found 10"),
        ("nguyen2019/gradients", {"k": 11}, "^k: found 11"),
        ("nguyen2019/gradients", {"bias": 0.1}, "^bias: found 0.1"),
        ("nguyen2019/theorem3", {"k": 30}, "^k: found 30"),
        ("nguyen2019/theorem3", {"delta": 3.0}, "^delta: found 3"),
        ("nguyen2019/theorem4", {"k": 20}, "^k: found 20"),
        ("nguyen2019/theorem4", {"steps": 0.0}, "^steps: found 0"),
    ],
)
def test_settings_that_are_refused(name, changes, text):
    with pytest.raises(ArgumentError, match=text):
        tiny(name, **changes)


def holds(checks, words):
    (check,) = (check for check in checks if words in check.claim)
    return check.holds


def curve(equation, errors, printed):
    return [
        {"equation": equation, "n_samples": size, "error": error, "error_printed": wrong}
        for size, error, wrong in zip((16_000, 64_000), errors, printed, strict=True)
    ]


def test_a_formula_that_is_wrong_is_seen_by_its_slope():
    right = gradients._verdicts(curve("(9)", (0.02, 0.01), (None, None)))
    assert holds(right, "slope")
    assert holds(right, "N = 64000")
    wrong = gradients._verdicts(curve("(9)", (0.06, 0.05), (None, None)))
    assert not holds(wrong, "slope")
    assert not holds(wrong, "N = 64000")
    printed = gradients._verdicts(curve("(15)", (0.02, 0.01), (0.3, 0.3)))
    assert holds(printed, "as printed over")
    assert not holds(gradients._verdicts(curve("(15)", (0.02, 0.01), (0.02, 0.01))), "as printed")


def test_a_share_that_is_too_small_is_seen():
    cell = {"case": "i", "atoms": "gaussian", "n": 512, "k": 5, "delta": 0.5, "ratio": 5.6}
    words = "n = 512, m = 1024"
    assert holds(theorem3._verdicts([{**cell, "share": 0.995}], []), words)
    assert not holds(theorem3._verdicts([{**cell, "share": 0.98}], []), words)
    assert theorem3._verdicts([{**cell, "share": 0.98, "n": 500}], []) == []


def test_the_interval_of_biases_closes_where_it_should():
    (found,) = theorem3._intervals(theorem3.Settings(n=(8,), k=(4,)))
    # 1 - delta < 3 delta sqrt(4) from delta = 1/7 on, seen on a grid of .005.
    assert found["empty_from"] == pytest.approx(0.145)


@pytest.mark.parametrize(("make", "least", "most"), [
    (random_dictionary, 0.7, 1.1),
    (orthonormal_union, 0.0, 1e-6),
])  # fmt: skip
def test_signed_codes_rest_where_the_rule_says(make, least, most):
    world = SparseCoding(make(64, 32, random_state=1), 3, values=Rademacher())
    assert least <= theorem4._rest(world) / (4 * 2**2 / 32) <= most


def test_within_the_span_of_the_atoms_it_is_steeper():
    from shoal.generative import NonnegativeSparseCoding

    world = NonnegativeSparseCoding(np.eye(14), 5, low=1.0, high=2.0)
    # By power iteration on the derivative of the enumerated gradient: 8.154.
    assert theorem4._curvature_inside(world) == pytest.approx(8.154, abs=0.002)


def test_a_constant_that_grows_is_told_from_one_that_does_not():
    settings = theorem4.Settings(k_sizes=(3, 4), m_sizes=(4096, 65_536))
    three, four = theorem4.growth(settings)
    assert (three["verdict"], four["verdict"]) == ("confirmed", "contradicted")
    numbers = {
        "contraction": [],
        "signed_plateaus": [
            {"atoms": "gaussian", "n": 64, "k": 4, "rest": 0.9, "rule": 1.0, "first_order": 1.0},
            {"atoms": "tight", "rest": 0.0, "rule": 1.0},
        ],
        "mixture_plateaus": [{"rest": 1.0, "floor": 1.0}],
        "orthonormal": [
            {"label": label, "distances": [1.0, 0.0]}
            for label in ("c L = 1.8", "c = 1, damped", "c L = 2.2")
        ],
        "halving": [
            {"floor": floor, "distances": [1.0, 0.0], "least": 0.0} for floor in (0.0, -0.2)
        ],
        "growth": [three, four],
    }
    checks = theorem4._verdicts(numbers)
    assert holds(checks, "(iii) L <= 3, k = 3")
    assert holds(checks, "(iii) whatever the step, L > 3, k = 4")
    numbers["growth"] = [{**three, "power": 1.0}, {**four, "power": 0.0}]
    checks = theorem4._verdicts(numbers)
    assert not holds(checks, "(iii) L <= 3, k = 3")
    assert not holds(checks, "(iii) whatever the step, L > 3, k = 4")
    assert holds(checks, "short of its first order, over k / n: the largest")
    numbers["signed_plateaus"][0]["rest"] = 0.7
    assert not holds(theorem4._verdicts(numbers), "over k / n: the largest")


def test_the_crowd_that_theorem3_allows_is_too_large():
    settings = theorem3.Settings(n_hadamard=8192, n_samples=20)
    crowds = theorem3._crowds(settings)
    assert [each["share"] for each in crowds] == pytest.approx([1.0, 0.5, 0.0, 0.0], abs=0.5)
    assert all(check.holds for check in theorem3._verdicts_of_crowds(crowds))
    turned = [{**crowds[0], "share": 0.5}, {**crowds[-1], "share": 0.5}]
    assert not any(check.holds for check in theorem3._verdicts_of_crowds(turned))


def test_the_gap_between_two_intervals_of_biases():
    (found,) = theorem3._intervals(theorem3.Settings(n=(8,), k=(1,)))
    # The least delta of the grid: -delta^2/4 + 2 delta.
    assert found["gap_to_lemma1"] == pytest.approx(2 * 0.005 - 0.005**2 / 4, abs=1e-6)
