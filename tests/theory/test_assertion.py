"""Checks, and the verdict they add up to."""

import json
import math

import pytest

from shoal.theory.assertion import (
    TELLING,
    Assertion,
    Check,
    at_least,
    at_most,
    between,
    share_error,
    true,
)

YES, NO = true("it is so", 1), true("it is not", 0)


def made(hypotheses=(YES,), measurements=(), **changes):
    return Assertion(
        "Lemma 1", "Someone 2020, Lemma 1", hypotheses, "much", measurements, **changes
    )


@pytest.mark.parametrize(
    ("hypotheses", "measurements", "verdict", "applies", "holds"),
    [
        ((YES,), (YES,), "confirmed", True, True),
        ((YES,), (YES, NO), "contradicted", True, False),
        ((NO, YES), (YES,), "holds beyond its hypotheses", False, True),
        ((YES, NO), (NO,), "not promised", False, False),
        ((YES,), (), "promised", True, None),
        ((NO,), (), "open", False, None),
        ((), (YES,), "confirmed", True, True),
    ],
)
def test_verdicts(hypotheses, measurements, verdict, applies, holds):
    assertion = made(hypotheses, measurements)
    assert assertion.verdict == verdict
    assert assertion.applies is applies
    assert assertion.holds is holds
    plain = assertion.to_dict()
    assert (plain["verdict"], plain["applies"], plain["holds"]) == (verdict, applies, holds)
    assert str(assertion).startswith(f"Someone 2020, Lemma 1: {verdict}\n")


@pytest.mark.parametrize(
    ("check", "holds"),
    [
        (at_most("", 1.0, 1.0), True),
        (at_most("", 1.1, 1.0), False),
        (at_least("", 1.0, 1.0), True),
        (at_least("", 0.9, 1.0), False),
        (between("", 1.0, 1.0, 2.0), True),
        (between("", 2.0, 1.0, 2.0), True),
        (between("", 0.9, 1.0, 2.0), False),
        (between("", 2.1, 1.0, 2.0), False),
        (at_most("", -math.inf, 0.0), True),
        (at_least("", math.inf, 0.0), True),
        (at_most("", math.inf, 0.0), False),
    ],
)
def test_checks(check, holds):
    assert check.holds is holds


@pytest.mark.parametrize(
    "check",
    [
        at_most("", math.nan, 1.0),
        at_most("", 1.0, math.nan),
        at_least("", math.nan, 1.0),
        at_least("", 1.0, math.nan),
        between("", math.nan, 0.0, 1.0),
        between("", 0.5, math.nan, 1.0),
        between("", 0.5, 0.0, math.nan),
    ],
)
def test_nan_never_holds(check):
    assert check.holds is False


def test_a_note_stands_beside_the_bound():
    assert at_most("k", 3, 4, "constant 1").needed == "<= 4 (constant 1)"
    assert at_least("k", 3, 4).needed == ">= 4"
    assert between("k", 3, 0.5, 2).needed == "0.5 to 2"


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_checks_are_plain_values(value):
    assertion = made((at_most("a", value, 1.0),), (at_least("b", value, value),))
    text = json.dumps(assertion.to_dict(), allow_nan=False)
    back = json.loads(text)
    expected = None if math.isnan(value) else str(value)
    assert back["hypotheses"][0]["value"] == expected
    assert back["measurements"][0]["value"] == expected
    assert back["hypotheses"][0]["claim"] == "a"


def test_numbers_are_plain_values_too():
    numbers = {"xi": math.inf, "sweep": [{"nu2": -math.inf, "fall": math.nan, "k": 3}], "m": None}
    back = json.loads(json.dumps(made(numbers=numbers).to_dict(), allow_nan=False))
    assert back["numbers"] == {
        "xi": "inf",
        "sweep": [{"nu2": "-inf", "fall": None, "k": 3}],
        "m": None,
    }


def test_all_of_it_is_written():
    assertion = made(
        (YES, NO), (at_least("share", 0.25, 0.5),), numbers={"k": 3}, notes=("a misprint",)
    )
    assert assertion.to_dict()["numbers"] == {"k": 3}
    assert assertion.to_dict()["notes"] == ["a misprint"]
    assert str(assertion).splitlines() == [
        "Someone 2020, Lemma 1: not promised",
        "  needs it is so: 1, 1: yes",
        "  needs it is not: 0, 1: NO",
        "  promises much",
        "  measured share: 0.25, >= 0.5: NO",
        "  note: a misprint",
    ]


CLEAR = at_most("clear", 2.0, 1.0, error=0.99 / TELLING)
CLOSE = at_most("close", 2.0, 1.0, error=1.01 / TELLING)
OPEN = at_most("a constant", 2.0, 1.0, reading=True)
NEAR_MISS = at_least("a hypothesis", 1.0, 0.99, error=0.01)


@pytest.mark.parametrize(
    ("hypotheses", "measurements", "verdict"),
    [
        ((YES,), (CLEAR,), "contradicted"),
        ((YES,), (CLOSE,), "too few samples to tell"),
        ((YES,), (CLOSE, CLEAR), "contradicted"),
        ((YES,), (OPEN,), "needs a larger constant"),
        ((YES,), (OPEN, CLOSE), "needs a larger constant"),
        ((YES,), (OPEN, CLEAR), "contradicted"),
        ((NO,), (OPEN,), "not promised"),
        ((NEAR_MISS,), (OPEN,), "too few samples to tell"),
        ((YES,), (at_most("", 2.0, 1.0, error=1.0, reading=True),), "too few samples to tell"),
        ((YES,), (at_most("", 1.0, 2.0, reading=True),), "confirmed"),
        ((YES,), (YES, CLOSE), "too few samples to tell"),
        ((NO,), (CLOSE,), "not promised"),
        ((NEAR_MISS,), (CLEAR,), "too few samples to tell"),
        ((NEAR_MISS,), (NO,), "too few samples to tell"),
        ((NEAR_MISS,), (YES,), "confirmed"),
        ((YES,), (at_most("", 1.0, 2.0, error=5.0),), "confirmed"),
        ((YES,), (at_most("", 2.0, 1.0, error=math.inf),), "too few samples to tell"),
        ((YES,), (at_most("", math.inf, 1.0, error=math.inf),), "too few samples to tell"),
        ((YES,), (at_most("", math.inf, 1.0, error=1.0),), "contradicted"),
        ((YES,), (at_most("", math.nan, 1.0),), "too few samples to tell"),
        ((YES,), (at_most("", math.nan, 1.0, error=1.0),), "too few samples to tell"),
        ((YES,), (at_most("", 2.0, 1.0, error=math.nan),), "too few samples to tell"),
    ],
)
def test_nothing_is_said_against_a_paper_within_the_sampling_error(
    hypotheses, measurements, verdict
):
    assert made(hypotheses, measurements).verdict == verdict


@pytest.mark.parametrize(
    ("check", "margin"),
    [
        (at_most("", 2.0, 3.0), 1.0),
        (at_most("", 3.0, 2.0), -1.0),
        (at_least("", 2.0, 3.0), -1.0),
        (between("", 2.0, 1.0, 5.0), 1.0),
        (between("", 6.0, 1.0, 5.0), -1.0),
        (true("", 0), math.inf),
    ],
)
def test_a_margin_is_the_distance_from_the_bound(check, margin):
    assert check.margin == margin


def test_a_check_made_by_hand_is_exact():
    assert made((YES,), (Check("by hand", 2.0, "< 1", False),)).verdict == "contradicted"


def test_the_error_stands_beside_the_value():
    assertion = made((YES,), (CLOSE,), remarks=("less would do",), errata=("a sign: 1 = -1",))
    assert str(assertion).splitlines()[-3:] == [
        "  measured close: 2 +- 0.25, <= 1: NO",
        "  remark: less would do",
        "  erratum: a sign: 1 = -1",
    ]
    plain = assertion.to_dict()
    assert plain["measurements"][0]["error"] == 1.01 / TELLING
    assert (plain["remarks"], plain["errata"]) == (["less would do"], ["a sign: 1 = -1"])


def test_the_error_of_a_share_is_never_0():
    assert share_error(0.5, 10_000) == pytest.approx(0.005, rel=1e-3)
    assert 1e-4 < share_error(1.0, 1000) < 2e-3
    assert share_error(0.0, 1000) == pytest.approx(share_error(1.0, 1000))
