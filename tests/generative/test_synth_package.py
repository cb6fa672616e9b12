"""The law of the benchmark against the generator that was published with it, where installed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports in turn
    synthetic = pytest.importorskip(
        "sae_lens.synthetic", reason="the extra 'synth' isn't installed"
    )

import torch

from shoal.generative import SYNTH_SIZES, coherence, synth_sae_bench

N = 30_000
pytestmark = pytest.mark.filterwarnings("ignore")  # of its sparse tensors


@pytest.fixture(scope="module")
def world():
    return synth_sae_bench("1k", random_state=7)


@pytest.fixture(scope="module")
def theirs(world):
    """Codes (N, F) of the package's generator, given our world's parameters."""
    forest, law, values = world.forest, world.support, world.values
    children = [np.flatnonzero(forest.parent == unit) for unit in range(len(forest))]

    def node(unit):
        below = [node(int(child)) for child in children[unit]]
        return synthetic.HierarchyNode(int(unit), below, len(below) > 1, True)

    roots = [node(unit) for unit in np.flatnonzero(forest.parent < 0) if len(children[unit])]
    factor = torch.from_numpy(law.factor).float()
    generator = synthetic.ActivationGenerator(
        world.n_atoms,
        torch.from_numpy(law.frequency).float(),
        torch.from_numpy(values.deviation).float(),
        torch.from_numpy(values.mean).float(),
        modify_activations=synthetic.hierarchy_modifier(roots),
        correlation_matrix=(factor, 1 - factor.square().sum(dim=1)),
        use_sparse_tensors=True,
    )
    torch.manual_seed(0)
    from scipy.sparse import csr_array, vstack

    blocks = []
    for _ in range(N // 3000):
        drawn = generator.sample(3000).coalesce()
        entries, places = drawn.values().numpy(), drawn.indices().numpy()
        blocks.append(csr_array((entries, tuple(places)), shape=tuple(drawn.shape)))
    codes = vstack(blocks, format="csr")
    codes.eliminate_zeros()
    return codes


def firing(codes):
    on = codes.copy()
    on.data = np.ones_like(on.data)
    return on


def test_frequencies_and_pairs_are_those_of_the_package(world, theirs):
    on, goal = firing(world.sample(N, 8).codes), firing(theirs)
    found, meant = (np.asarray(each.sum(axis=0)) / N for each in (on, goal))
    spread = np.sqrt(np.maximum(meant * (1 - meant), 1 / N) * 2 / N)
    scores = (found - meant) / spread
    assert np.abs(scores).max() < 5.5
    assert 0.85 < scores.std() < 1.1
    for codes in (goal, on):  # what we say of frequencies holds for both
        scores = (np.asarray(codes.sum(axis=0)) / N - world.frequency) / spread * np.sqrt(2)
        assert np.abs(scores).max() < 5.5
    pairs, expected = ((each.T @ each).toarray() / N for each in (on, goal))
    spread = np.sqrt(np.maximum(pairs + expected, 1 / N) / N)
    scores = (pairs - expected) / spread
    assert np.abs(scores).max() < 5.5
    often = expected > 50 / N
    assert 0.9 < scores[often].std() < 1.1
    sizes = [np.diff(each.indptr) for each in (on, goal)]
    assert abs(sizes[0].mean() - sizes[1].mean()) < 5 * sizes[1].std() * np.sqrt(2 / N)
    assert abs(sizes[0].std() / sizes[1].std() - 1) < 0.03


def test_magnitudes_are_those_of_the_package(world, theirs):
    ours = world.sample(N, 9).codes
    for power in (1, 2):
        sums, counts, variances = [], [], []
        for codes in (ours, theirs):
            codes = codes.tocsc()
            column = np.repeat(np.arange(world.n_atoms), np.diff(codes.indptr))
            number = np.maximum(np.diff(codes.indptr), 1)
            mean = np.bincount(column, codes.data**power, world.n_atoms) / number
            square = np.bincount(column, codes.data ** (2 * power), world.n_atoms) / number
            sums.append(mean)
            counts.append(number)
            variances.append(np.maximum(square - mean**2, 1e-9) / number)
        often = np.minimum(*counts) > 100
        scores = (sums[0] - sums[1])[often] / np.sqrt(variances[0] + variances[1])[often]
        assert np.abs(scores).max() < 5.5


def test_the_whole_model_of_the_package_has_our_sizes(world):
    sizes = SYNTH_SIZES["1k"]
    model = synthetic.SyntheticModel(
        synthetic.SyntheticModelConfig(
            sizes.n_units,
            sizes.n_features,
            synthetic.ZipfianFiringProbabilityConfig(0.5, 0.4, 5e-4),
            synthetic.HierarchyConfig(
                sizes.roots,
                4,
                3,
                mutually_exclusive_portion=1.0,
                compensate_probabilities=True,
                scale_children_by_parent=True,
            ),
            synthetic.OrthogonalizationConfig(100, 3e-4),
            synthetic.LowRankCorrelationConfig(25, 0.1),
            synthetic.FoldedNormalMagnitudeConfig(0.5, 0.5),
            synthetic.LinearMagnitudeConfig(5.0, 4.0),
            bias=0.5,
            seed=0,
        )
    )
    their_rows = model.feature_dict.feature_vectors.detach().numpy()
    ours, goal = world.dictionary @ world.dictionary.T, their_rows @ their_rows.T
    above = np.triu_indices(len(ours), 1)
    assert abs(ours[above].std() / goal[above].std() - 1) < 0.01
    assert abs(coherence(world.dictionary) / coherence(their_rows) - 1) < 0.15
    assert abs(model.feature_dict.bias.norm().item() - np.linalg.norm(world.offset)) < 1e-6
    generator = model.activation_generator
    assert np.allclose(generator.firing_probabilities, world.support.frequency, rtol=1e-5)
    assert np.allclose(generator.mean_firing_magnitudes, world.values.mean)
    assert abs(generator.std_firing_magnitudes.mean() - world.values.deviation.mean()) < 0.07
    torch.manual_seed(1)
    sizes = [float((generator.sample(2000) > 0).sum(dim=1).float().mean()) for _ in range(5)]
    assert abs(np.mean(sizes) - world.expected_k) < 0.2
