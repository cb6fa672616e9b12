"""The experiments of Rangamani et al. run, judge and draw; their parts do what they say."""

import math

import numpy as np
import pytest
import torch

from shoal import papers
from shoal.generative import random_dictionary
from shoal.papers.rangamani2017 import figure1, setting, table1, table2, theorem31, theorem32
from shoal.report.drawing import PRINT, plain_settings
from shoal.vocabulary import ArgumentError

NAMES = [name for name in papers.names() if name.startswith("rangamani2017/")]


@pytest.fixture(autouse=True)
def one_thread():
    """Small products, and often other work beside them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def perform(name, changes=()):
    experiment = papers.find(name)
    running = papers.perform(experiment, papers.configure(experiment, "smoke", changes), "smoke")
    shares = []
    while True:
        try:
            shares.append(next(running).share)
        except StopIteration as stop:
            assert shares == sorted(shares)
            assert shares[-1] == 1.0
            return stop.value


def holds_of(checks, words):
    found = [check.holds for check in checks if words in check.claim]
    assert len(found) == 1, f"{words!r} is in {len(found)} claims"
    return found[0]


@pytest.fixture(scope="module")
def results():
    """Each experiment's smoke run, once."""
    return {}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_finds_the_same_numbers_and_another_others(name, results):
    first = results.setdefault(name, perform(name))
    assert perform(name)["numbers"] == first["numbers"]
    other = perform(name, ["seed=5"])
    assert other["seeds"] == [5]
    assert other["numbers"] != first["numbers"]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("table1", ["h=64", "n=16", "p=0.3"]),
        ("table2", ["h=64", "n=16", "p=0.3"]),
        ("figure1", ["h=64", "n=16", "p=0.3"]),
        ("theorem31", ["n=16", "k=1,2,40"]),
        ("theorem31", ["n=15", "k=2", "gaussian_n=16", "gaussian_h=30"]),
        ("theorem32", ["h=64", "n=16", "p=0.3"]),
        ("theorem32", ["h=16,32", "p=0.1,0.5,1.0"]),
        ("theorem32", ["h=4,256", "p=0", "n=128"]),
        ("table2", ["n=128", "p=0.2"]),
        ("figure1", ["n=128", "p=0.2"]),
    ],
)
def test_sizes_that_the_paper_does_not_have(name, sizes):
    result = perform("rangamani2017/" + name, ["n_samples=100", *sizes])
    assert result["verdicts"]
    assert not any("paper" in verdict["claim"] for verdict in result["verdicts"])
    with plain_settings(PRINT):
        papers.find("rangamani2017/" + name).plot(result, PRINT).canvas.draw()


@pytest.mark.parametrize("name", NAMES)
def test_sizes_that_cannot_be_are_refused_before_any_work(name):
    experiment = papers.find(name)
    for change in ("n_samples=0", "n_seeds=0", "n=-1"):
        with pytest.raises(ArgumentError):
            papers.configure(experiment, "smoke", [change])


# --- Table 1 ----------------------------------------------------------------------------------


def table1_cells(norms, p=0.1, ks=(1, 1, 1)):
    """Cells of one column, as the run makes them, with these norms."""
    return [
        {
            "h": h,
            "p": p,
            "literal": {"norm": 0.0},
            "matching": {"norm": norm},
            "ratio": norm / (37 * h ** (p - 1)),
            "scaled": norm / 15,
            "range": [norm / 15, norm / 15],
            "paper": None,
            "k": k,
        }
        for h, norm, k in zip((256, 512, 1024), norms, ks, strict=True)
    ]


def test_a_norm_that_rises_with_h_turns_the_check_of_table_1():
    words = "does not rise with h"
    assert holds_of(table1._verdicts(table1_cells((0.3, 0.2, 0.1))), words)
    assert not holds_of(table1._verdicts(table1_cells((0.3, 0.1, 0.2))), words)


def test_a_rise_where_k_goes_from_1_to_2_is_the_rounding_s():
    cells = table1_cells((0.3, 0.1, 0.2), ks=(1, 1, 2))
    assert holds_of(table1._verdicts(cells, "floor"), "does not rise with h")
    assert holds_of(table1._verdicts(cells, "floor"), "where k goes from 1 to 2")
    falls = table1._verdicts(table1_cells((0.3, 0.2, 0.1), ks=(1, 1, 2)), "floor")
    assert not holds_of(falls, "where k goes from 1 to 2")


def test_a_unit_that_answers_under_the_literal_bias_turns_its_check():
    cells = table1_cells((0.3, 0.2, 0.1))
    assert holds_of(table1._verdicts(cells), "literal")
    cells[1]["literal"]["norm"] = 1e-9
    assert not holds_of(table1._verdicts(cells), "literal")


def test_the_printed_table_1_breaks_its_caption_once():
    assert table1.printed_rises() == [(0.1, 512, 1024)]
    assert (table1.PAPER[512][1], table1.PAPER[1024][1]) == (0.0071, 0.0079)


def literal_norm(h, p, rounding, n_samples=1500):
    settings = table1.Settings(n_samples=n_samples, n_points=1, rounding=rounding)
    found = table1.cell(h, p, settings, 0)["literal"]
    return found["norm"], found["k"]


@pytest.mark.parametrize(
    ("h", "p"), [(256, 0.05), (512, 0.05), (1024, 0.05), (256, 0.1), (512, 0.1)]
)
def test_with_h_to_the_p_rounded_down_units_answer_under_the_literal_bias(h, p):
    norm, k = literal_norm(h, p, "floor")
    assert k == 1
    assert norm > 0
    if p == 0.05:  # the paper's number, without any constant
        printed = table1.PAPER[h][table1.PAPER_P.index(p)]
        assert 1 / 3 < norm / printed < 3
    assert literal_norm(h, p, "ceil") == (0.0, 2)


@pytest.mark.parametrize(("h", "p"), [(1024, 0.1), (256, 0.2), (512, 0.3), (256, 0.5)])
def test_it_silences_all_at_larger_powers_however_they_are_rounded(h, p):
    assert {literal_norm(h, p, each)[0] for each in ("ceil", "floor")} == {0.0}


def test_the_literal_verdicts_can_fail():
    def cell(p, norm, paper=0.0126):
        return {"p": p, "literal": {"norm": norm}, "paper": paper, "k": 1}

    def verdicts(*cells, rounding="floor"):
        return [check.holds for check in table1._literal_verdicts(list(cells), rounding)]

    assert verdicts(cell(0.2, 0.0), cell(0.05, 0.02)) == [True, True]
    assert verdicts(cell(0.2, 1e-9), cell(0.05, 0.04)) == [False, False]
    assert verdicts(cell(0.05, 0.0)) == [False]
    assert verdicts(cell(0.05, 0.02, paper=None)) == []
    assert verdicts(cell(0.05, 1e-9), rounding="ceil") == [False]


@pytest.mark.parametrize("name", ["table1", "table2", "figure1"])
def test_the_rounding_is_a_setting(name):
    experiment = papers.find("rangamani2017/" + name)
    assert papers.configure(experiment, "smoke", ["rounding=floor"]).rounding == "floor"
    with pytest.raises(ArgumentError, match="rounding"):
        papers.configure(experiment, "smoke", ["rounding=down"])


# --- Table 2 ----------------------------------------------------------------------------------


def test_what_the_point_zero_covers_is_what_is_counted():
    truth = torch.from_numpy(random_dictionary(20, 6, 0))
    start = truth + 7.0 * torch.from_numpy(random_dictionary(20, 6, 1))
    gone = table2.covered(torch.zeros_like(truth), start, truth)
    assert gone == pytest.approx(table2.covered_by_zero(7.0), rel=1e-12)
    assert table2.covered(start, start, truth) == 0.0
    assert table2.covered(truth, start, truth) == 100.0


def test_where_the_printed_percentages_end():
    ends = table2.printed_ends()
    farther = {place: round(end, 2) for place, end in ends.items() if end > 1}
    assert farther == {
        (1024, 0.05): 1.02,
        (2048, 0.05): 1.53,
        (4096, 0.05): 2.14,
        (4096, 0.1): 1.24,
    }
    nearer = sorted(round(end, 2) for end in ends.values() if end <= 1)
    assert nearer == [0.52, 0.53, 0.61, 0.68, 0.77, 0.89]
    for (h, p), end in ends.items():
        printed = table2.PAPER[h][table2.PAPER_P.index(p)]
        assert (table2.covered_by_zero(h ** (1 - 2 * p) / 5) > printed) == (end > 1)
    assert 1 - 0.89**2 / 2 > 0.6  # the cosine of columns of length 1
    # Half a digit of the print, as a distance: of the four only the first could be below 1.
    half = {(h, p): 0.0005 * h ** (1 - 2 * p) / 5 for h, p in farther}
    assert [place for place in farther if ends[place] - half[place] < 1] == [(1024, 0.05)]


def test_starts_are_where_they_should_be():
    rng = np.random.default_rng(0)
    model = setting.world(64, 0.1, 16, rng)
    truth = torch.from_numpy(model.dictionary)
    starts = {n: table2.start_of(v, model, 9.0, rng) for n, v in table2.VARIANTS.items()}
    for name in ("theorem", "unbiased", "common"):
        distances = (starts[name] - truth).norm(dim=1)
        torch.testing.assert_close(distances, torch.full((64,), 9.0), rtol=1e-5, atol=0)
    moved = starts["common"] - truth
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), rtol=0, atol=1e-5)
    assert torch.linalg.matrix_rank(starts["unbiased"] - truth, atol=1e-3) == 16
    apart = starts["control"] - starts["control"].mean(dim=0)
    assert abs(setting.mean_cosine(apart, truth)) < 0.2


def test_descent_falls_to_where_the_gradient_is_small():
    # One unit and one direction: L = m2 (1 - w^2)^2 / 2 has its least value at w = 1.
    data = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    start = torch.tensor([[2.0]], dtype=torch.float64)
    bias = torch.zeros(1, dtype=torch.float64)
    end = table2.descend(start, bias, data, 1e-6, 200)
    assert end.fall <= 1e-6
    assert end.weights.item() == pytest.approx(1.0, abs=1e-5)
    assert end.loss_ratio < 1e-9
    assert 0 < end.steps < 60
    short = table2.descend(start, bias, data, 1e-6, 1)
    assert short.steps == 1
    assert end.loss_ratio < short.loss_ratio < 1
    assert start.item() == 2.0


def test_descent_stays_where_every_unit_is_silent():
    data, start = torch.ones(3, 2), torch.ones(4, 2)
    end = table2.descend(start, torch.full((4,), -100.0), data, 1e-6, 50)
    assert end.steps == 0
    assert (end.fall, end.loss_ratio) == (0.0, 1.0)
    assert torch.equal(end.weights, start)


def table2_cells(common, literal=90.0, alignment=0.7):
    """The paper's ten cells, the reconstruction `common` points off."""
    cells = []
    for h, numbers in table2.PAPER.items():
        for p, paper in zip(table2.PAPER_P, numbers, strict=True):
            base = {"alignment": 0.0, "stop": 0.9, "loss_ratio": 0.1}
            values = {name: {**base, "covered": literal} for name in table2.VARIANTS}
            values["common"] |= {"covered": paper + common, "alignment": alignment}
            runs = {name: {**each, "runs": [each]} for name, each in values.items()}
            zero = table2.covered_by_zero(h ** (1 - 2 * p) / 5)
            cells.append({"h": h, "p": p, "paper": paper, "zero": zero, **runs})
    return cells


def test_the_verdicts_of_table_2_can_fail():
    words = {
        "one direction, no bias, to 1e-6: of 10",
        "literal protocol, with",
        "mean of the cells",
    }
    good = table2._verdicts(table2_cells(0.3))
    assert all(check.holds for check in good)
    assert all(holds_of(good, each) for each in words)
    assert not holds_of(table2._verdicts(table2_cells(0.9)), "of 10 cells")
    near = table2._verdicts(table2_cells(0.3, literal=99.0))
    assert not holds_of(near, "literal protocol, with")
    assert not holds_of(table2._verdicts(table2_cells(0.3, alignment=0.1)), "mean of the cells")


def test_the_paper_is_left_out_where_its_sizes_are_not_run():
    cells = [{**each, "paper": None} for each in table2_cells(50.0)]
    assert [check.holds for check in table2._verdicts(cells)] == [True]


def test_mean_cosine_takes_a_unit_of_length_zero_as_zero():
    weights = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    assert setting.mean_cosine(weights, torch.eye(2)) == 0.5


# --- Figure 1 ---------------------------------------------------------------------------------


def test_a_fall_and_a_dip_are_seen():
    assert figure1.largest_fall([1.0, 2.0, 3.0]) == 0.0
    assert figure1.largest_fall([1.0, 4.0, 3.0, 5.0]) == 0.25
    assert figure1.largest_fall([0.0, 0.0]) == 0.0
    assert figure1.dip([2.0, 1.0, 9.0]) == 0.5
    assert figure1.dip([1.0, 1.5]) == 1.5


def test_a_curve_that_falls_on_the_way_out_turns_the_check_of_figure_1():
    def curve(h, p, **values):
        usual = {"loss_fall": 0.0, "norm_fall": 0.0, "dip": 0.8, "silent": 0.9, "loss": [1.0, 2.0]}
        return {"h": h, "p": p, "runs": [{**usual, **values}]}

    assert all(c.holds for c in figure1._verdicts([curve(256, 0.1), curve(4096, 0.3)]))
    assert not holds_of(figure1._verdicts([curve(256, 0.1, loss_fall=0.01)]), "the loss never")
    assert not holds_of(figure1._verdicts([curve(4096, 0.3, dip=1.0)]), "dips")
    assert [c.holds for c in figure1._verdicts([curve(64, 0.3)])] == [True]


# --- Theorems 3.1 and 3.2 ---------------------------------------------------------------------


def test_the_sweep_holds_runs_on_both_sides_of_the_condition(results):
    name = "rangamani2017/theorem31"
    points = results.setdefault(name, perform(name))["numbers"]["points"]
    within = [each for each in points if each["condition"] >= 1]
    assert within
    assert all(each["share"] == 1 and each["missed"] == 0 for each in within)
    assert min(each["share"] for each in points) < 0.5
    assert max(each["false"] for each in points) < 1e-9


def test_a_miss_where_the_condition_holds_turns_the_check():
    point = {"condition": 1.5, "share": 1.0, "false": 0.0}
    assert holds_of(theorem31._verdicts([point]), "condition >= 1")
    assert not holds_of(theorem31._verdicts([{**point, "share": 0.99}]), "condition >= 1")
    answered = theorem31._verdicts([{**point, "false": 0.01}])
    assert not holds_of(answered, "outside the support")


def test_false_answers_are_what_is_wrong_beyond_the_missed():
    # h = 10, k = 2: half of the active units missed (1 wrong), and 2 of 8 answer falsely.
    numbers = {"units_right": 1 - 3 / 10, "missed_share": 0.5}
    assert theorem31._false_share(numbers, 10, 2) == pytest.approx(2 / 8)


def theorem32_column(p, ratios, silent=0.0):
    return [
        {"h": h, "p": p, "ratio": r, "e": r / 9, "silent": silent, "condition": 2.0, "beta": 1.0}
        for h, r in zip((64, 512, 4096), ratios, strict=True)
    ]


def test_the_verdicts_of_theorem_3_2_can_fail():
    assert all(c.holds for c in theorem32._verdicts(theorem32_column(0.1, (0.9, 0.5, 0.3))))
    flat = theorem32._verdicts(theorem32_column(0.1, (0.9, 0.8, 0.7)))
    assert not holds_of(flat, "gradient norm")
    assert not holds_of(flat, "|e_i|")
    assert not holds_of(
        theorem32._verdicts(theorem32_column(0.2, (0.9, 0.5, 0.1))), "no such decay"
    )
    asleep = theorem32._verdicts(theorem32_column(0.1, (0.9, 0.5, 0.3), silent=1.0))
    assert not holds_of(asleep, "silent")
    for check in asleep:
        assert math.isfinite(check.value)
