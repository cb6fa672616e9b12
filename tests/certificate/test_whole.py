"""What is said of a dictionary as a whole, where the truth is known."""

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import linprog

import shoal
from shoal.certificate.evidence import locally_best, pull, together
from shoal.certificate.learning import left_over
from shoal.certificate.refits import Coded
from shoal.certificate.whole import _curve, hypotheses, unseen
from shoal.generative import NonnegativeSparseCoding, SparseCoding, random_dictionary
from shoal.theory import nguyen2019

M, N, K = 24, 16, 2


@pytest.fixture(scope="module")
def world():
    return SparseCoding(random_dictionary(M, N, random_state=0), K, noise=0.05)


@pytest.fixture(scope="module")
def rows(world):
    return world.sample(1200, random_state=1).data


def certified(rows, m, **settings):
    model = shoal.DictionaryAutoencoder(m, K, random_state=0, **settings).fit(rows)
    return shoal.certify(model, rows, budget=4, random_state=0)


@pytest.fixture(scope="module")
def found(rows):
    return certified(rows, M)


def test_as_many_atoms_and_active_ones_are_supported_as_there_are(found):
    said = found.whole
    assert M - 1 <= said.atoms.chosen <= M + 2
    assert K <= said.active.chosen <= K + 1
    assert max(said.atoms.explained) > 0.8
    assert len(said.atoms.sizes) == len(said.atoms.explained) == len(said.atoms.sd)
    assert str(said.atoms.chosen) in said.atoms.reason


def test_more_atoms_than_there_are_are_not_supported(rows):
    with pytest.warns(UserWarning, match="the data have use for"):
        said = certified(rows, 36).whole.atoms
    assert said.sizes[-1] >= 30
    assert M - 2 <= said.chosen <= 28


def test_where_there_are_more_than_were_asked_for_it_says_so(rows):
    said = certified(rows, 18).whole.atoms
    assert said.chosen is None or said.chosen > 18
    assert said.sizes[int(np.argmax(said.explained))] > 18


def test_of_data_without_atoms_no_number_is_supported():
    rng = np.random.default_rng(0)
    gaussian = rng.standard_normal((500, N)) @ rng.standard_normal((N, N))
    said = certified(gaussian, M).whole
    assert said.atoms.chosen is None
    assert "no number of atoms is supported" in said.atoms.reason
    gap = said.explained["model"].value - said.explained["surrogate"].value
    assert gap < 0.1


def test_rows_in_a_plane_are_asked_about_within_it(rows):
    """There a feature follows from the others, whatever the atoms."""
    wide = rows @ np.linalg.qr(np.random.default_rng(1).standard_normal((2 * N, N)))[0].T
    said = certified(wide, M).whole
    assert said.linear.value < 0.9
    assert M - 1 <= said.atoms.chosen <= M + 2


def test_learnt_atoms_explain_more_than_others_do(found):
    explained = dict(found.whole.explained)
    own = explained.pop("model")
    assert set(explained) == {"surrogate", "rows", "gaussian"}
    for other in explained.values():
        assert own.value > other.value + 0.1
        assert 0 <= other.sd < 0.1
    assert found.whole.counts["certified"].value == found.certified.sum()
    assert found.whole.counts["certified"].sd < 3


def test_what_is_said_is_in_the_summary_and_in_json(found):
    said, whole = found.summary(), found.to_dict()["whole"]
    assert found.whole.atoms.reason in said
    assert whole["atoms"]["chosen"] == found.whole.atoms.chosen
    held = sum(each["holds"] for each in whole["hypotheses"])
    assert f"{held} of these hold" in said
    for name in ("match_sd", "firing_sd", "share_sd", "crowding_sd"):
        assert found.evidence[name].shape == (M,)


@pytest.mark.parametrize("kind", [SparseCoding, NonnegativeSparseCoding])
def test_hypotheses_on_the_true_atoms_are_those_of_the_truth(kind):
    world = kind(random_dictionary(M, N, random_state=0), K)
    sample = world.sample(3000, random_state=2)
    codes = sparse.csc_array(sample.codes.astype(np.float64))
    atoms = world.dictionary.astype(np.float64)
    stated = hypotheses(Coded(atoms, codes, np.zeros((3000, N))), 3000)
    case = "i" if kind is SparseCoding else "iii"
    asked = [nguyen2019.definition1(world), nguyen2019.theorem3(world, atoms, case=case)]
    known = {(a.source, check.claim): check for a in asked for check in a.hypotheses}
    mine = {(each["source"], each["claim"]): each for each in stated}
    assert known.keys() <= mine.keys()
    for name, check in known.items():
        if "kappa1" in name[1]:  # a mean of 0, which that of codes is only nearly
            assert abs(mine[name]["value"]) < 0.05
            continue
        assert mine[name]["holds"] == check.holds, name
        assert mine[name]["value"] == pytest.approx(check.value, rel=0.02, abs=1e-6), name


def test_features_left_out_are_predicted_by_the_true_atoms_alone(world):
    clean = SparseCoding(world.dictionary, K).sample(200, random_state=3).data.astype(float)
    parts = np.array_split(np.arange(N), 4)
    atoms = world.dictionary.astype(float)
    whole = np.square(clean).sum()
    assert unseen(atoms, clean, K, parts, signed=True).sum() < 0.1 * whole
    others = random_dictionary(M, N, random_state=9).astype(float)
    assert unseen(others, clean, K, parts, signed=True).sum() > 0.9 * whole


def test_atoms_that_are_missing_are_found_in_what_is_left(world):
    rng = np.random.default_rng(4)
    truth = world.dictionary[:6].astype(float)
    which = rng.integers(6, size=900)
    rest = truth[which] * rng.uniform(1, 2, 900)[:, None] * rng.choice([-1, 1], 900)[:, None]
    rest += 0.05 * rng.standard_normal(rest.shape)
    found = left_over(rest, 20, True, 0)
    assert found.shape == (10, N)
    assert np.abs(found @ truth.T).max(axis=0).min() > 0.95
    assert left_over(np.zeros((5, N)), 20, True, 0).shape == (0, N)


# --- local optimality --------------------------------------------------------------------------


def bases(turn):
    """Rows of an orthonormal basis with Bernoulli-Gaussian codes, under it turned by an angle."""
    rng = np.random.default_rng(5)
    basis = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    codes = rng.standard_normal((2000, 8)) * (rng.random((2000, 8)) < 0.2)
    data = codes @ basis
    other = basis.copy()
    other[0] = np.cos(turn) * basis[0] + np.sin(turn) * basis[1]
    under = data @ np.linalg.inv(other)
    under[np.abs(under) < 1e-9] = 0.0
    return Coded(other, sparse.csc_array(under), np.zeros_like(data))


def test_a_basis_that_is_a_local_minimum_is_told_from_one_that_is_not():
    assert locally_best(bases(0.0)).max() < 1
    # Turned, the first atom takes a part of what the second explains.
    assert locally_best(bases(0.3))[0] > 1


def test_the_condition_is_that_of_gribonval_and_schnass():
    rows = bases(0.0)
    codes = rows.codes.toarray()
    value = locally_best(rows)
    for k in (0, 3):
        on = codes[:, k] != 0
        rest = np.delete(codes, k, axis=1)
        cosines = np.delete(rows.atoms @ rows.atoms[k], k)
        wanted = rest[on].T @ np.sign(codes[on, k]) - np.abs(codes[:, k]).sum() * cosines
        off = rest[~on].T
        lying = np.linalg.lstsq(off, wanted, rcond=None)[0]
        assert np.abs(lying).max() == pytest.approx(value[k], rel=1e-3)
        some = off[:, :300]  # fewer rows: no smaller a largest value than with all
        size = some.shape[1]
        ones = np.ones((size, 1))
        least = linprog(
            np.append(np.zeros(size), 1.0),
            A_ub=np.block([[np.eye(size), -ones], [-np.eye(size), -ones]]),
            b_ub=np.zeros(2 * size),
            A_eq=np.hstack([some, np.zeros((7, 1))]),
            b_eq=wanted,
            bounds=[(None, None)] * size + [(0, None)],
        )
        assert least.fun < 1


def test_an_atom_that_is_turned_away_is_pulled_back(world):
    sample = world.sample(1000, random_state=6)
    codes = sparse.csc_array(sample.codes.astype(np.float64))
    atoms = world.dictionary.astype(np.float64)
    atoms[0] = (atoms[0] + 0.3 * atoms[1]) / np.linalg.norm(atoms[0] + 0.3 * atoms[1])
    found = pull(Coded(atoms, codes, sample.data - codes @ atoms))
    assert found[0] > 10
    assert np.median(found[1:]) < 2


def test_singular_values_are_those_of_the_atoms_that_fire_together():
    atoms = random_dictionary(6, 5, random_state=7).astype(np.float64)
    codes = np.zeros((3, 6))
    codes[0, [0, 1]] = codes[1, [1, 2, 3]] = codes[2, [3]] = 1.0
    low, high = together(Coded(atoms, sparse.csc_array(codes), np.zeros((3, 5))))
    pair, three = (np.linalg.svd(atoms[s])[1] for s in ([0, 1], [1, 2, 3]))
    assert low[0] == pytest.approx(pair.min())
    assert high[2] == pytest.approx(three.max())
    assert low[1] == pytest.approx(min(pair.min(), three.min()))
    assert high[3] == pytest.approx(max(three.max(), 1.0))
    assert np.isnan(low[4:]).all()
    assert np.isnan(high[4:]).all()


@pytest.mark.parametrize(
    ("linear", "said"), [(0.05, "a few directions"), (0.6, "no such structure")]
)
def test_where_no_number_is_supported_it_says_why(linear, said):
    errors, fits = np.full((2, 3, 100), 0.7), np.full((2, 100), linear)
    curve = _curve([2, 4, 8], errors, fits, 100.0, "atoms", 4)
    assert curve.chosen is None
    assert said in curve.reason
