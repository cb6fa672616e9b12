import numpy as np
import pytest
import torch

from made import gaussian
from shoal.network import TopK
from shoal.network.inference import OrthogonalMatchingPursuit, SparseCodes
from shoal.training import Revival
from shoal.training.revival import combinations, duplicates, revive, split
from shoal.vocabulary import ArgumentError, Parameters


def unit(rows):
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)


def basis(m, n, seed=0):
    return torch.linalg.qr(gaussian(seed, n, m)).Q.T.contiguous()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"every": 0}, "every"),
        ({"idle": 0}, "idle"),
        ({"tries": 0}, "tries"),
        ({"duplicate_cosine": 1.1}, "duplicate"),
        ({"every": 1.5}, "every"),
    ],
)
def test_settings_name_what_is_wrong(arguments, name):
    with pytest.raises(ArgumentError, match=f"^{name}"):
        Revival(**arguments)


# --- combinations ----------------------------------------------------------------------------


def test_a_sum_of_two_atoms_that_are_used_more_is_a_combination():
    rows = unit(torch.cat([torch.eye(4, 16), torch.tensor([[0.7, 0.6, 0.1, *[0.0] * 13]])]))
    rows = torch.cat([rows, torch.zeros(1, 16)])
    assert combinations(rows, torch.tensor([9, 8, 7, 6, 5, 0.0]), 0.3).tolist() == [
        *[False] * 4, True, False
    ]  # fmt: skip
    # Of the three that are in one plane the one that is used least; a sum of three is none.
    assert combinations(rows, torch.tensor([9, 1, 7, 6, 5, 0.0]), 0.3).tolist() == [
        False, True, *[False] * 4
    ]  # fmt: skip
    three = unit(torch.cat([torch.eye(4, 16), torch.tensor([[1.0, 1, 1, *[0.0] * 13]])]))
    assert not combinations(three, torch.tensor([9.0, 8, 7, 6, 5]), 0.3).any()


@pytest.mark.parametrize(("m", "n"), [(2, 5), (40, 3), (64, 8), (128, 64), (256, 512)])
def test_random_atoms_are_no_combinations(m, n):
    rows = unit(torch.randn(m, n, generator=torch.Generator().manual_seed(0)))
    assert not combinations(rows, torch.arange(m, 0, -1.0), 0.35).any()


# --- duplicates ------------------------------------------------------------------------------


def test_of_equal_atoms_the_most_used_one_stays():
    first, second, third = basis(3, 5)
    rows = torch.stack([first, second, first, -first, third, second])
    usage = torch.tensor([1.0, 2, 3, 3, 0, 2])
    # Of the first direction unit 2 stays (used as much as unit 3, of lower index).
    expected = [True, False, False, True, False, True]
    assert duplicates(rows, usage, 0.9).tolist() == expected
    assert duplicates(rows, usage.double(), 0.9).tolist() == expected


def test_near_is_above_the_cosine():
    angle = 0.3
    rows = torch.tensor([[1.0, 0.0], [np.cos(angle), np.sin(angle)]], dtype=torch.float64)
    usage = torch.ones(2)
    assert duplicates(rows, usage, np.cos(angle) - 1e-9).tolist() == [False, True]
    assert duplicates(rows, usage, np.cos(angle) + 1e-9).tolist() == [False, False]
    assert duplicates(rows * torch.tensor([[1.0], [-1.0]]), usage, 0.9).tolist() == [False, True]


def test_no_atom_repeats_itself_or_an_atom_of_zeros():
    rows = torch.cat([basis(3, 5), torch.zeros(2, 5, dtype=torch.float64)])
    assert not duplicates(rows, torch.zeros(5), 0.5).any()


# --- revive ----------------------------------------------------------------------------------


def world_to_revive(dtype=torch.float64):
    """Six atoms: 3 is near 0 and used less, 4 never fires; rows 5 and 9 are explained worst."""
    atoms = basis(8, 8).to(dtype)
    rows = atoms[:6].clone()
    rows[3] = unit((atoms[0] + 0.1 * atoms[3])[None])[0]
    usage = torch.tensor([5, 4, 4, 3, 0, 4], dtype=dtype)
    data = atoms[[0, 1, 2, 5] * 5][:16].clone()
    data[9] = 3 * atoms[6] + atoms[1]
    data[5] = 2 * atoms[7]
    losses = torch.zeros(16, dtype=dtype)
    losses[9], losses[5] = 4.5, 2.0
    return atoms, Parameters(rows, torch.zeros(6, dtype=dtype)), usage, data, losses


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_dead_atom_and_a_duplicate_become_residuals(dtype):
    atoms, parameters, usage, data, losses = world_to_revive(dtype)
    before = parameters.dictionary.clone()
    tries = torch.zeros_like(usage)
    found, tries, replaced = revive(
        parameters, usage, usage == 0, tries, data, losses, TopK(2), Revival()
    )
    assert replaced == 2
    assert found.dtype == dtype
    assert torch.equal(found[[0, 1, 2, 5]], before[[0, 1, 2, 5]])
    # Row 9 is worst: atom 1 explains its part along it, 3 atoms[6] is left, and the weakest
    # unit, which stands for nothing here, is given up.
    torch.testing.assert_close(found[3], atoms[6])
    torch.testing.assert_close(found[4].abs(), atoms[7].abs())
    assert torch.equal(parameters.dictionary, before)
    assert tries.tolist() == [0, 0, 0, 1, 1, 0]


def test_nothing_to_replace_gives_the_dictionary_back():
    _, parameters, _, data, losses = world_to_revive()
    sound = parameters._replace(dictionary=basis(6, 8))
    found, _, replaced = revive(
        sound,
        torch.ones(6).double(),
        torch.zeros(6).bool(),
        torch.zeros(6),
        data,
        losses,
        TopK(1),
        Revival(),
    )
    assert replaced == 0
    assert torch.equal(found, sound.dictionary)


def test_a_duplicate_is_what_the_settings_say():
    _, parameters, usage, data, losses = world_to_revive()
    strict = Revival(duplicate_cosine=0.999)
    found, _, replaced = revive(
        parameters, usage, usage == 0, torch.zeros(6), data, losses, TopK(1), strict
    )
    assert replaced == 1
    assert torch.equal(found[3], parameters.dictionary[3])


@pytest.mark.parametrize("n_samples", [1, 2, 5])
def test_at_most_half_of_the_rows_become_atoms(n_samples):
    _, parameters, _, data, losses = world_to_revive()
    unused = torch.zeros(6, dtype=torch.float64)
    found, _, replaced = revive(
        parameters,
        unused,
        unused == 0,
        torch.zeros(6),
        data[:n_samples],
        losses[:n_samples],
        TopK(1),
        Revival(),
    )
    assert replaced == n_samples // 2
    same = (found == parameters.dictionary).all(dim=1)
    assert same[n_samples // 2 :].all()


def test_a_residual_of_zeros_leaves_the_atom():
    eye = torch.eye(4, dtype=torch.float64)
    parameters = Parameters(eye, torch.zeros(4, dtype=torch.float64))
    usage = torch.tensor([1.0, 1, 1, 0], dtype=torch.float64)
    data = torch.zeros(3, 4, dtype=torch.float64)
    found, _, _ = revive(
        parameters, usage, usage == 0, torch.zeros(4), data, torch.ones(3), TopK(1), Revival()
    )
    assert torch.equal(found, eye)


def test_an_atom_that_was_replaced_often_enough_is_given_up():
    _, parameters, usage, data, losses = world_to_revive()
    tries = torch.tensor([9.0, 9, 9, 2, 1, 9])  # of atoms that are sound they don't matter
    settings = Revival(tries=2)
    before = tries.clone()
    found, after, replaced = revive(
        parameters, usage, usage == 0, tries, data, losses, TopK(1), settings
    )
    assert torch.equal(tries, before)
    tries = after
    assert replaced == 1
    assert not found[3].any()
    assert found[4].norm() == pytest.approx(1.0)
    assert torch.equal(found[[0, 1, 2, 5]], parameters.dictionary[[0, 1, 2, 5]])
    assert tries.tolist() == [9, 9, 9, 2, 2, 9]
    # Given up for good: it is nobody's duplicate, and dead from now on.
    usage[3] = 0
    again, _, replaced = revive(
        parameters._replace(dictionary=found),
        usage,
        usage == 0,
        tries,
        data,
        losses,
        TopK(1),
        settings,
    )
    assert replaced == 0
    assert not again[3:5].any()


# --- split -----------------------------------------------------------------------------------


def unused(atoms):
    """A unit row orthogonal to all atoms."""
    more = torch.cat([atoms, gaussian(9, 1, atoms.shape[1])])
    return torch.linalg.qr(more.T).Q.T[-1:]


def merged_world(spare, seed=0, n_samples=400):
    """Data of four orthonormal atoms; the estimate has one for the first two, and `spare`."""
    atoms = basis(4, 8)
    rng = np.random.default_rng(seed)
    units = torch.from_numpy(rng.integers(0, 4, n_samples))
    values = torch.from_numpy(rng.uniform(1, 2, n_samples) * rng.choice([-1, 1], n_samples))
    data = atoms[units] * values[:, None]
    merged = unit((atoms[0] + atoms[1])[None])
    estimate = torch.cat([atoms[2:3], merged, spare, atoms[3:4]])
    codes = OrthogonalMatchingPursuit(1)(estimate, data)
    losses = 0.5 * (data - codes.reconstruct(estimate)).square().sum(dim=1)
    worth = codes.dense(4).square().sum(dim=0)
    return atoms, estimate, data, codes, losses, worth


@pytest.mark.parametrize("kind", ["dead", "duplicate"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_merged_atom_and_a_spare_one_become_two(kind, seed):
    true = basis(4, 8)
    spare = unused(true) if kind == "dead" else true[2:3]
    _, estimate, data, codes, losses, worth = merged_world(spare, seed)
    if kind == "duplicate":  # a third of the users are its own, and still it can be spared
        users = torch.nonzero(codes.indices[:, 0] == 0).flatten()[::3]
        codes.indices[users, 0] = 2
        keep = codes.indices[:, 0] != 1  # and those of the merged atom are fewer
        keep[::2] = True
        codes = SparseCodes(codes.indices[keep], codes.values[keep])
        data, losses = data[keep], losses[keep]
        worth = codes.dense(4).square().sum(dim=0)
        assert worth[0] > worth[2] > 0.5 * losses[codes.indices[:, 0] == 1].sum()
    before = estimate.clone()
    found, n_split = split(estimate, data, codes, losses, worth)
    assert n_split == 1
    assert torch.equal(found[[0, 3]], before[[0, 3]])
    assert torch.equal(estimate, before)
    cosines = (found[[1, 2]] @ true[:2].T).abs()
    order = cosines.argmax(dim=1)
    assert sorted(order.tolist()) == [0, 1]
    torch.testing.assert_close(cosines.amax(dim=1), torch.ones(2).double())


def test_atoms_that_explain_are_not_spent():
    # All four atoms of the estimate are in use; none is worth giving up.
    atoms = basis(4, 8)
    rng = np.random.default_rng(2)
    values = gaussian(3, 400, 4) * torch.from_numpy(rng.random((400, 4)) < 0.4)
    data = values @ atoms + 0.05 * gaussian(4, 400, 8)
    codes = OrthogonalMatchingPursuit(2)(atoms, data)
    losses = 0.5 * (data - codes.reconstruct(atoms)).square().sum(dim=1)
    found, n_split = split(atoms, data, codes, losses, codes.dense(4).square().sum(dim=0))
    assert n_split == 0
    assert torch.equal(found, atoms)


def test_a_spectrum_without_a_direction_is_no_reason_to_split():
    # Noise in every direction: a spare atom, but no atom that stands for two.
    atoms = basis(5, 16)
    units = torch.from_numpy(np.random.default_rng(5).integers(0, 4, 2000))
    data = 2 * atoms[units] + 0.1 * gaussian(6, 2000, 16)
    codes = OrthogonalMatchingPursuit(1)(atoms, data)
    losses = 0.5 * (data - codes.reconstruct(atoms)).square().sum(dim=1)
    worth = codes.dense(5).square().sum(dim=0)
    assert worth[4] == 0
    found, n_split = split(atoms, data, codes, losses, worth)
    assert n_split == 0
    assert torch.equal(found, atoms)


def test_an_atom_of_few_users_is_not_split():
    spare = unused(basis(4, 8))
    _, estimate, data, codes, losses, worth = merged_world(spare, n_samples=400)
    users = torch.nonzero(codes.indices[:, 0] == 1).flatten()
    others = torch.nonzero(codes.indices[:, 0] != 1).flatten()
    for n_users, expected in ((9, 0), (12, 1)):
        rows = torch.cat([others, users[:n_users]])
        few = SparseCodes(codes.indices[rows], codes.values[rows])
        worth = few.dense(4).square().sum(dim=0)
        _, n_split = split(estimate, data[rows], few, losses[rows], worth)
        assert n_split == expected


def test_a_share_of_the_atoms_at_most_is_moved():
    # Four merged pairs and four spare atoms among twelve.
    atoms = basis(12, 24)
    rng = np.random.default_rng(7)
    data = atoms[rng.integers(0, 8, 1600)] * torch.from_numpy(rng.uniform(1, 2, (1600, 1)))
    merged = unit(atoms[0:8:2] + atoms[1:8:2])
    spare = atoms[8:12]
    unused = torch.linalg.qr(torch.cat([atoms, gaussian(8, 12, 24)]).T).Q.T[12:16]
    estimate = torch.cat([merged, spare, unused])
    codes = OrthogonalMatchingPursuit(1)(estimate, data)
    losses = 0.5 * (data - codes.reconstruct(estimate)).square().sum(dim=1)
    worth = codes.dense(12).square().sum(dim=0)
    for share, expected in ((0.1, 1), (0.25, 3), (0.5, 4)):
        found, n_split = split(estimate, data, codes, losses, worth, max_share=share)
        assert n_split == expected
        recovered = ((atoms[:8] @ found.T).abs().amax(dim=1) > 1 - 1e-9).sum()
        assert recovered == 2 * expected
        norms = torch.linalg.vector_norm(found, dim=1)
        torch.testing.assert_close(norms, torch.ones(12).double())


def test_weak_atoms_of_poorly_explained_users_do_not_stand_in_the_way_of_a_split():
    # Of all atoms, the rare ones here leave their few users worst explained, sample by
    # sample; the merged pair, with many users, has far more to gain.
    generator = np.random.default_rng(5)
    basis = np.linalg.qr(generator.standard_normal((20, 20)))[0]
    merged = (basis[0] + basis[1]) / 2**0.5
    rare = basis[10:14]
    estimate = torch.from_numpy(np.vstack([merged, basis[2:9], rare]))
    plain = np.repeat(basis[:9], 200, axis=0)
    noise = generator.standard_normal((4 * 12, 20))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    odd = 0.3 * np.repeat(rare, 12, axis=0) + 0.9 * noise
    data = torch.from_numpy(np.vstack([plain, odd]))
    indices = np.concatenate([np.repeat([0, 0, *range(1, 8)], 200), np.repeat(range(8, 12), 12)])
    index = torch.from_numpy(indices)[:, None]
    codes = SparseCodes(index, (data * estimate[index[:, 0]]).sum(dim=1, keepdim=True))
    losses = 0.5 * (data - codes.reconstruct(estimate)).square().sum(dim=1)
    worth = codes.dense(12).square().sum(dim=0)
    assert losses[-48:].mean() > losses[:400].mean()
    found, n_split = split(estimate, data, codes, losses, worth)
    assert n_split == 1
    cosines = (found @ torch.from_numpy(basis[:2]).T).abs().amax(dim=0)
    torch.testing.assert_close(cosines, torch.ones(2, dtype=torch.float64))
