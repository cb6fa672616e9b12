"""Reading ahead: the same batches in the same order, and a thread that ends with who asks."""

import os
import threading
import time

import numpy as np
import pytest

import shoal
from shoal.data.ahead import read_ahead
from shoal.training import descent


def slowly(count, *, fails=None, seconds=0.01, begun=0):
    for number in range(begun, count):
        time.sleep(seconds)
        if number == fails:
            raise ValueError(f"batch {number} can't be read")
        yield number


def flow(count, **named):
    return read_ahead(slowly(count, **named), lambda last: slowly(count, begun=last + 1))


def readers():
    return [each for each in threading.enumerate() if each.name == "shoal-reading"]


def test_batches_come_in_their_order_and_the_thread_ends_with_them():
    assert list(flow(30)) == list(range(30))
    assert not readers()
    assert list(flow(3)) == [0, 1, 2]
    assert list(flow(0)) == []


def test_slow_reading_takes_place_beside_the_work_and_quick_reading_has_no_thread():
    for seconds, threads in ((0.01, 1), (0.0, 0)):
        batches = flow(40, seconds=seconds)
        for number in batches:
            time.sleep(0.01)
            if number == 20:
                assert len(readers()) == threads
                start = time.perf_counter()
        if threads:  # one after the other it would be .4 s
            assert time.perf_counter() - start < 0.32


def test_an_error_is_raised_where_its_batch_would_come():
    for fails in (3, 20):
        batches = flow(40, fails=fails)
        assert [next(batches) for _ in range(fails)] == list(range(fails))
        with pytest.raises(ValueError, match=f"batch {fails} can't be read"):
            next(batches)
        assert not readers()


def test_who_leaves_ends_the_thread_and_no_more_than_two_batches_were_read():
    read = []

    def watched():
        for number in slowly(1000):
            read.append(number)
            yield number

    batches = read_ahead(watched(), lambda last: slowly(1000, begun=last + 1))
    for number in batches:
        if number == 20:
            time.sleep(0.2)
            assert len(read) <= number + 3
            break
    batches.close()
    assert not readers()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_goes_on_by_itself():
    batches = flow(40)
    came = [next(batches) for _ in range(20)]
    assert readers()
    child = os.fork()
    if not child:
        try:
            rest = list(batches)
        except BaseException:  # whatever it is, the child must end here
            os._exit(2)
        os._exit(0 if rest == list(range(20, 40)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert came + list(batches) == list(range(40))


def test_a_fit_that_reads_ahead_has_the_bits_of_one_that_does_not(tmp_path, monkeypatch):
    rows = np.random.default_rng(0).normal(size=(600, 12))
    np.save(tmp_path / "x.npy", rows)
    began = []
    monkeypatch.setattr("shoal.data.ahead._MUCH", 0.0)  # whatever reading takes

    def counted(*arguments):
        began.append(True)
        return read_ahead(*arguments)

    monkeypatch.setattr(descent, "read_ahead", counted)
    models = [
        shoal.DictionaryAutoencoder(16, 2, random_state=0).fit(data)
        for data in (rows, tmp_path / "x.npy")
    ]
    assert began
    assert models[0].components_.tobytes() == models[1].components_.tobytes()
    assert not readers()
