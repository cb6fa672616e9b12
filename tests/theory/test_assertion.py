"""Checks, and the verdict they add up to."""

import json
import math

import pytest

from shoal.theory.assertion import Assertion, at_least, at_most, between, true

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
