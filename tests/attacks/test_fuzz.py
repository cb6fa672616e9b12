"""The harness of the fuzzing itself: what isn't a refusal is counted and kept."""

import os

import pytest

pytest.importorskip("atheris")

from attacks import fuzz
from shoal.vocabulary import ArgumentError


@pytest.mark.skipif(not os.environ.get("SHOAL_FUZZ"), reason="SHOAL_FUZZ is not set")
def test_inputs_of_a_reader_are_counted_and_none_ends_in_a_traceback(tmp_path):
    ends = fuzz.fuzzed(".npy", 300, 3, tmp_path)
    assert ends["refused"] > 0
    assert set(ends) <= {"refused", "read"}
    assert sum(ends.values()) == 300


def test_an_error_of_more_than_one_line_is_no_refusal():
    assert fuzz._one_line(ArgumentError("m", "0", "1")) == "refused"
    with pytest.raises(AssertionError, match="not one line"):
        fuzz._one_line(ValueError("one\ntwo"))
