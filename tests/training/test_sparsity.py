import numpy as np
import pytest
import torch

from shoal import DictionaryAutoencoder
from shoal.data import open_source
from shoal.generative import NonnegativeSparseCoding, SparseCoding, random_dictionary
from shoal.training.sparsity import begin_search, by_gain, elbow, find_sparsity, unexplained
from shoal.vocabulary import ArgumentError, Parameters


def world(k, *, seed=0, m=96, n=48, n_samples=6000, noise=0.0, signed=True):
    model = SparseCoding if signed else NonnegativeSparseCoding
    truth = random_dictionary(m, n, random_state=seed)
    return truth, model(truth, k, noise=noise).sample(n_samples, random_state=seed + 50).data


def searched(data, m, model="sparse", seed=0):
    """k, and the phases and numbers of the steps."""
    rng = np.random.default_rng(seed)
    dictionary = torch.from_numpy(random_dictionary(m, data.shape[1], random_state=99)).float()
    start = Parameters(dictionary, torch.zeros(m))
    source, steps = open_source(data), []
    search = find_sparsity(begin_search(start, rng), start, source, model)
    while True:
        try:
            state, _ = next(search)
            steps.append(state.searched)
        except StopIteration as end:
            return end.value, steps


# --- the elbow -------------------------------------------------------------------------------


def test_the_elbow_of_made_up_shares():
    assert elbow([1, 0.5, 0.05, 0.045, 0.04, 0.036], 64, 64) == 2
    assert elbow([1, 0.9, 0.8, 0.68, 0.5, 0.1, 0.09, 0.082], 64, 64) == 5
    # A dictionary that is nearly exact: one atom more explains part of what it is off by.
    left = np.cumprod(1 - np.array([0, 0.32, 0.34, 0.41, 0.56, 0.989, 0.232, 0.053, 0.066, 0.094]))
    assert elbow(left, 256, 100) == 5
    # Explained up to rounding: what further atoms do to that is nothing.
    assert elbow([1, 0.5, 1e-9], 64, 64) == 2
    assert elbow([1, 0.5, 1e-9, 1e-14], 64, 64) == 2
    # No elbow: each atom explains the same share; none explains more than chance.
    assert elbow([0.8**t for t in range(9)], 64, 64) is None
    # Nor where what an atom explains falls by the same factor each time.
    assert elbow(np.cumprod(1 - 0.36 * 0.6 ** np.arange(-1, 8.0)), 64, 64) is None
    assert elbow([1, 0.99, 0.985, 0.984], 64, 64) is None
    assert elbow([1.0], 64, 64) is None


@pytest.mark.parametrize("signed", [True, False])
def test_what_k_atoms_of_the_truth_leave(signed):
    truth, data = world(3, signed=signed, noise=0.02)
    dictionary, rows = torch.from_numpy(truth), torch.from_numpy(data[:500])
    left = [unexplained(dictionary, rows, k, signed=signed) for k in range(1, 6)]
    assert left == sorted(left, reverse=True)
    assert left[1] > 0.05
    assert left[2] < 0.01
    assert elbow([1.0, *left], *truth.shape) == 3
    assert unexplained(dictionary, torch.zeros(4, 48).double(), 2, signed=signed) == 0.0


# --- the search ------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 4, 7])
@pytest.mark.parametrize("signed", [True, False])
def test_finds_the_number(k, signed):
    _, data = world(k, seed=k, signed=signed)
    found, steps = searched(data, 96, "sparse" if signed else "nonnegative")
    assert abs(found - k) <= 1
    assert [each.k for each in steps] == sorted(each.k for each in steps) or found < steps[-1].k


@pytest.mark.parametrize("k", [2, 4])
def test_finds_it_in_noise(k):
    _, data = world(k, seed=10 + k, noise=0.05)
    assert searched(data, 96)[0] == k


def test_noise_alone_has_none():
    data = np.random.default_rng(3).standard_normal((2000, 32))
    assert searched(data, 48)[0] is None


# --- n_nonzero_coefs="auto" ------------------------------------------------------------------


def auto(m, **changes):
    return DictionaryAutoencoder(m, "auto", **({"random_state": 0} | changes))


def test_the_fit_is_the_one_that_the_number_would_give():
    _, data = world(3, m=48, n=32, n_samples=3000)
    model = auto(48)
    phases = [step.phase for step in model.iter_fit(data)]
    assert list(dict.fromkeys(phases)) == ["search", "descent", "refinement", "polish"]
    assert model.n_nonzero_coefs_ == 3
    assert model.n_nonzero_coefs == "auto"
    given = DictionaryAutoencoder(48, 3, random_state=0).fit(data)
    np.testing.assert_array_equal(model.components_, given.components_)
    assert {record["phase"] for record in model.history_} == {"descent", "refinement", "polish"}
    codes = model.transform(data[:50], "omp")
    assert (codes != 0).sum(axis=1).max() == 3


@pytest.mark.parametrize("stream", [False, True])
def test_partial_fit_searches_in_its_first_call(stream):
    _, data = world(2, m=48, n=32, n_samples=3000)
    model = auto(48).partial_fit(iter(np.array_split(data, 10)) if stream else data)
    assert model.n_nonzero_coefs_ == 2
    steps = model.n_steps_
    model.partial_fit(data[:100])
    assert model.n_nonzero_coefs_ == 2
    assert model.n_steps_ > steps


def test_a_stream_that_can_be_read_once_is_enough():
    _, data = world(2, m=48, n=32, n_samples=3000)
    assert auto(48).fit(iter(np.array_split(data, 10))).n_nonzero_coefs_ == 2


def test_partial_fit_waits_for_samples_to_search_in():
    _, data = world(2, m=48, n=32, n_samples=3000)
    model = auto(48)
    for piece in np.split(data[:470], 47):
        model.partial_fit(piece)
        assert model.n_nonzero_coefs_ == 5  # a tenth, until there are enough
    model.partial_fit(data[470:480])
    together = auto(48).partial_fit(data[:480])
    assert model.n_nonzero_coefs_ == together.n_nonzero_coefs_
    assert model.components_.tobytes() == together.components_.tobytes()
    assert auto(48).partial_fit(data[:10]).partial_fit(data).n_nonzero_coefs_ == 2


def test_where_no_number_stands_out_the_default_is_used_with_a_warning():
    data = np.random.default_rng(4).standard_normal((800, 20))
    with pytest.warns(UserWarning, match=r"no number of non-zeros stands out in X; 3 is used"):
        model = auto(30).fit(data)
    assert model.n_nonzero_coefs_ == 3


def test_a_mixture_has_one_active_unit_and_no_search():
    _, data = world(1, m=8, n=32, n_samples=400, signed=False)
    model = auto(8, model="mixture")
    assert "search" not in {step.phase for step in model.iter_fit(data)}
    assert model.n_nonzero_coefs_ == 1


@pytest.mark.parametrize("wrong", ["Auto", "", "3", 0, 2.5])
def test_other_words_are_refused(wrong):
    _, data = world(1, m=8, n=32, n_samples=400)
    with pytest.raises(ArgumentError, match=r"^n_nonzero_coefs: .*or 'auto'"):
        DictionaryAutoencoder(8, wrong).fit(data)


# --- more atoms than there are ---------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("signed", [True, False])
def test_atoms_without_a_use_are_left_out(noise, signed):
    truth, data = world(3, m=60, n=40, n_samples=8000, noise=noise, signed=signed)
    model = DictionaryAutoencoder(
        75, 3, model="sparse" if signed else "nonnegative", random_state=0
    )
    with pytest.warns(UserWarning, match=r"n_components=75: the data have use for 6\d atoms"):
        model.fit(data)
    # Without noise training may end, all explained, before the last ones are given up.
    assert 60 <= len(model.components_) <= (61 if noise else 67)
    assert model.bias_.shape == (len(model.components_),)
    cosines = truth @ model.components_.T
    assert (np.abs(cosines) if signed else cosines).max(axis=1).min() > 0.99
    assert model.transform(data[:10]).shape == (10, len(model.components_))


def test_partial_fit_keeps_its_atoms():
    _, data = world(3, m=30, n=24, n_samples=6000)
    model = DictionaryAutoencoder(60, 3, random_state=0)
    for _ in range(4):
        model.partial_fit(data)
    np.testing.assert_allclose(np.linalg.norm(model.components_, axis=1), np.ones(60))


@pytest.mark.filterwarnings("ignore:The mean of X:UserWarning")
@pytest.mark.filterwarnings("ignore:n_components=:UserWarning")
def test_on_real_data_a_number_is_chosen_with_its_reason_and_never_a_silent_1():
    digits = next(open_source("sample:digits").batches(2000))
    for preprocessing in ("none", "center"):
        model = DictionaryAutoencoder(64, "auto", preprocessing=preprocessing, random_state=0)
        with pytest.warns(UserWarning, match="no number of non-zeros stands out") as noted:
            model.fit(digits)
        assert model.n_nonzero_coefs_ >= 4
        (said,) = [str(each.message) for each in noted if "auto" in str(each.message)]
        assert said in model.notes_
        assert "1: " in said
        assert "8: " in said


def test_the_curve_ends_where_it_is_flat_and_at_the_most_that_is_asked_for():
    shares = {1: 0.3, 2: 0.45, 4: 0.6, 8: 0.61, 16: 0.8}
    assert by_gain(shares, 32) == 4
    assert by_gain(shares, 3) == 2
    assert by_gain({1: 0.9999, 2: 0.99999}, 32) == 1
    assert by_gain({1: 1.0}, 32) == 1
