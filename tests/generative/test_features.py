"""Worlds as they are: sparse draws against the laws as stated, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.sparse import csr_array

from shoal.generative import (
    BernoulliSupport,
    CopulaSupports,
    Forest,
    HierarchicalSparseCoding,
    Outliers,
    RectifiedGaussian,
    SizedSupport,
    SparseFeatures,
    Uniform,
    UniformSupport,
    coherence,
    laws_of,
    random_dictionary,
    spread_apart,
    synth_sae_bench,
    world_of,
    write_samples,
    zipf,
)
from shoal.vocabulary import ArgumentError

N = 40_000


@pytest.fixture(scope="module")
def small():
    """A forest of two levels and free units, with rare and frequent ones, strongly correlated."""
    frequency = zipf(40, 1.0, high=0.6, low=0.01)
    factor = CopulaSupports.random(frequency, 5, 0.3, 0).factor
    forest = Forest.regular(40, roots=3, children=2, depth=2)
    return HierarchicalSparseCoding(
        random_dictionary(40, 20, 1),
        frequency,
        forest,
        factor=factor,
        values=RectifiedGaussian(np.linspace(5.0, 1.0, 40), 1.0),
    )


def directly(world, n_samples, rng):
    """The law as it is stated: a normal for each unit, dense, level by level. Codes (N, F)."""
    forest, law, values = world.forest, world.support, world.values
    on = law.draw_directly(rng, n_samples)
    mean = values.means(world.n_atoms)
    codes = np.maximum(mean + values.deviation * rng.standard_normal(on.shape), 0.0) * on
    for parent in range(len(forest)):  # breadth first: parents come before their children
        children = np.flatnonzero(forest.parent == parent)
        if not len(children):
            continue
        if forest.exclusive:
            lots = rng.random((n_samples, len(children))) * (codes[:, children] > 0)
            first = lots.argmax(axis=1)[:, None] == np.arange(len(children))
            codes[:, children] *= first
        share = codes[:, parent] / mean[parent] if forest.scaled else codes[:, parent] > 0
        codes[:, children] *= share[:, None]
    return codes


def close(found, goal, n_samples, most=5.0):
    """Whether two frequencies, each of `n_samples`, differ by sampling error at most."""
    middle = (found + goal) / 2
    spread = np.sqrt(np.maximum(middle * (1 - middle), 1.0 / n_samples) * 2 / n_samples)
    return np.all(np.abs(found - goal) < most * spread)


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_the_sparse_sampler_draws_the_law_that_the_dense_one_does(small, exclusive, scaled):
    forest = Forest(small.forest.parents, exclusive, scaled)
    world = SparseFeatures(small.dictionary, small.support, small.values, forest)
    found = world.sample(N, random_state=2).codes.toarray()
    goal = directly(world, N, np.random.default_rng(3))
    on, meant = (found > 0).astype(float), (goal > 0).astype(float)
    assert close(on.mean(axis=0), meant.mean(axis=0), N)
    assert close(on.T @ on / N, meant.T @ meant / N, N)
    sizes = [np.bincount(each.sum(axis=1).astype(int), minlength=41) / N for each in (on, meant)]
    assert close(*sizes, N)
    for power in (1, 2):
        moments = [(each**power).mean(axis=0) for each in (found, goal)]
        errors = [(each**power).var(axis=0) / N for each in (found, goal)]
        assert np.all(np.abs(moments[0] - moments[1]) < 5 * np.sqrt(errors[0] + errors[1]))


def test_any_law_of_the_support_goes_through_a_forest_as_the_copula_does(small):
    chances = small.support.frequency
    forest = small.forest
    both = [
        SparseFeatures(small.dictionary, law, small.values, forest)
        for law in (BernoulliSupport(chances), CopulaSupports(chances))
    ]
    found = [(world.sample(N, 4).codes.toarray() > 0).astype(float) for world in both]
    assert close(found[0].mean(axis=0), found[1].mean(axis=0), N)
    assert close(found[0].T @ found[0] / N, found[1].T @ found[1] / N, N)


@pytest.mark.parametrize(("exclusive", "scaled"), [(True, True), (False, False)])
def test_torch_draws_the_same_law(small, exclusive, scaled):
    forest = Forest(small.forest.parents, exclusive, scaled)
    world = SparseFeatures(small.dictionary, small.support, small.values, forest, np.ones(20))
    sample = world.sample(N, random_state=2, device="cpu")
    assert np.allclose(sample.codes @ world.dictionary + 1.0, sample.data, atol=1e-4)
    both = [sample.codes.toarray(), world.sample(N, random_state=3).codes.toarray()]
    on, meant = ((each > 0).astype(float) for each in both)
    assert close(on.mean(axis=0), meant.mean(axis=0), N)
    assert close(on.T @ on / N, meant.T @ meant / N, N)
    moments, errors = zip(
        *[(each.mean(axis=0), each.var(axis=0) / N) for each in both], strict=True
    )
    assert np.all(np.abs(moments[0] - moments[1]) < 5 * np.sqrt(errors[0] + errors[1]))
    again = world.sample(500, random_state=2, device="cpu")
    assert np.array_equal(again.data, world.sample(500, random_state=2, device="cpu").data)


def test_torch_draws_faults_too(small):
    parts = {"noise": 0.1, "outliers": Outliers(0.1, 1.0, 50.0), "missing": 0.1}
    world = SparseFeatures(small.dictionary, small.support, small.values, **parts)
    sample = world.sample(20_000, 0, device="cpu")
    known = ~np.isnan(sample.data.numpy())
    assert abs(1 - known.mean() - 0.1) < 0.005
    assert abs(sample.outliers.mean() - 0.1) < 0.01
    assert not np.diff(sample.codes.indptr)[sample.outliers].any()
    left = sample.data.numpy() - sample.codes @ world.dictionary
    assert abs(left[known & ~sample.outliers[:, None]].std() - 0.1) < 0.002
    plain = SparseFeatures(small.dictionary, UniformSupport(2), small.values)
    with pytest.raises(ArgumentError, match="device"):
        plain.sample(10, 0, device="cpu")


def test_supports_of_varying_size_have_the_chances_that_are_said():
    law = SizedSupport(np.geomspace(800, 1, 12), 1, 4)
    supports = law.draw(np.random.default_rng(0), N, 12)
    used = supports >= 0
    assert close(np.bincount(used.sum(axis=1), minlength=5)[1:] / N, np.full(4, 0.25), N)
    on = np.zeros((N, 12))
    on[np.nonzero(used)[0], supports[used]] = 1.0
    assert close(on.mean(axis=0), law.p1(12), N)
    assert close(on.T @ on / N, law.p2(12), N)
    i, j, l = np.random.default_rng(8).integers(0, 12, (3, 200))  # noqa: E741
    assert close((on[:, i] * on[:, j] * on[:, l]).mean(axis=0), law.p3(12, i, j, l), N)
    assert abs(law.p1(12).sum() - 2.5) < 1e-9
    equal, uniform = SizedSupport([2.0] * 6, 3, 3), UniformSupport(3)
    assert np.allclose(equal.p2(6), uniform.p2(6))
    assert (
        SizedSupport([1.0, 2.0], 2, 2).draw(np.random.default_rng(0), 5, 2).tolist() == [[0, 1]] * 5
    )


def test_frequencies_are_known(small):
    found = np.diff(small.sample(N, 5).codes.tocsc().indptr) / N
    assert close(found, small.frequency, N, 4.0)
    plain = CopulaSupports(small.support.frequency)
    world = SparseFeatures(small.dictionary, plain, small.values, small.forest)
    assert close(np.diff(world.sample(N, 6).codes.tocsc().indptr) / N, world.frequency, N, 4.0)


def test_pairs_and_triples_of_a_copula_are_those_of_draws(small):
    law = small.support
    on = law.draw_directly(np.random.default_rng(7), 2 * N).astype(np.float32)
    assert close(on.T @ on / (2 * N), law.p2(40), 2 * N)
    i, j, l = np.random.default_rng(8).integers(0, 12, (3, 300))  # noqa: E741
    found = (on[:, i] * on[:, j] * on[:, l]).mean(axis=0)
    assert close(found, law.p3(40, i, j, l), 2 * N)


def test_a_copula_without_a_factor_is_independent():
    law, same = CopulaSupports([0.3, 0.2, 1.0]), BernoulliSupport([0.3, 0.2, 1.0])
    assert np.allclose(law.p2(3), same.p2(3))
    assert np.allclose(law.p3(3, 0, [0, 1, 2], [2, 2, 2]), same.p3(3, 0, [0, 1, 2], [2, 2, 2]))
    supports = law.draw(np.random.default_rng(0), 1000, 3)
    assert (supports == 2).any(axis=1).all()


def test_a_child_is_never_active_without_its_parent_nor_beside_a_sibling(small):
    on = small.sample(10_000, 0).codes.toarray() > 0
    for child, parent in enumerate(small.forest.parents):
        if parent >= 0:
            assert not (on[:, child] & ~on[:, parent]).any()
            siblings = [
                each for each, up in enumerate(small.forest.parents) if up == parent != each
            ]
            assert (on[:, siblings].sum(axis=1) <= 1).all()


def test_parts_go_together(small):
    world = SparseFeatures(
        small.dictionary,
        small.support,
        small.values,
        small.forest,
        offset=np.full(20, 3.0),
        noise=0.1,
        outliers=Outliers(0.05, degrees=1.0, scale=10.0),
        missing=0.02,
    )
    sample = world.sample(50_000, 1)
    known = ~np.isnan(sample.data)
    assert abs(1 - known.mean() - 0.02) < 1e-3
    assert abs(sample.outliers.mean() - 0.05) < 0.005
    assert not np.diff(sample.codes.indptr)[sample.outliers].any()
    explained = sample.codes @ world.dictionary + 3.0
    inside = known & ~sample.outliers[:, None]
    left = (sample.data - explained)[inside]
    assert abs(left.mean()) < 1e-3
    assert abs(left.std() - 0.1) < 1e-3
    assert np.nanquantile(np.abs(sample.data[sample.outliers]), 0.99) > 300  # tails of a Cauchy law


def test_seeds_give_the_same_bits_on_any_number_of_threads(small, monkeypatch):
    first = small.sample(20_000, 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    again = small.sample(20_000, 3)
    assert np.array_equal(first.data, again.data)
    assert (first.codes != again.codes).nnz == 0
    assert not np.array_equal(first.data, small.sample(20_000, 4).data)
    streamed = list(small.stream(500, 3, n_batches=2))
    rng = np.random.default_rng(3)
    assert np.array_equal(streamed[0].data, small.sample(500, rng).data)
    assert np.array_equal(streamed[1].data, small.sample(500, rng).data)


def test_the_benchmark_has_the_sizes_that_were_published():
    world = synth_sae_bench("1k", random_state=7)
    assert world.dictionary.shape == (1024, 512)
    assert world.dictionary.dtype == np.float32
    assert coherence(world.dictionary) < 0.19
    assert np.isclose(np.linalg.norm(world.offset), 0.5)
    assert abs(world.expected_k - 7.27) < 0.1  # published for these sizes: 7.3 and 5.6
    assert abs(world.frequency[:256].sum() - 5.57) < 0.1
    assert np.bincount(world.forest.depth).tolist() == [8 + 344, 32, 128, 512]
    sample = world.sample(20_000, random_state=8)
    assert abs(sample.codes.nnz / 20_000 - world.expected_k) < 0.15
    assert np.allclose(sample.codes @ world.dictionary + world.offset, sample.data, atol=1e-4)


def test_atoms_spread_apart_are_unit_and_less_coherent():
    before, after = random_dictionary(300, 100, 0), spread_apart(300, 100, 0)
    assert np.allclose(np.linalg.norm(after, axis=1), 1.0)
    assert coherence(after) < coherence(before)


def test_zipf_runs_from_high_to_low():
    law = zipf(1024)
    assert (law[0], law[-1]) == (0.4, 5e-4)
    assert np.all(np.diff(law) < 0)
    assert zipf(1, high=0.2, low=0.1).tolist() == [0.2]


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: Forest((-1, 0)).compensated([0.1, 0.2]), "frequency"),
        (lambda: HierarchicalSparseCoding(np.eye(2), [0.1, 0.2], Forest((-1, 0))), "frequency"),
        (lambda: HierarchicalSparseCoding(np.eye(2), [0.1], Forest((-1, 0))), "frequency"),
        (lambda: HierarchicalSparseCoding(np.eye(2), [0.2, 0.1], None), "forest"),
        (lambda: Forest((1, 0)), "parents"),
        (lambda: Forest((0,)), "parents"),
        (lambda: Forest((-1, 2)), "parents"),
        (lambda: Forest(()), "parents"),
        (lambda: Forest.regular(4, roots=5), "roots"),
        (lambda: CopulaSupports([0.1, 1.2]), "frequency"),
        (lambda: CopulaSupports([0.0]), "frequency"),
        (lambda: CopulaSupports([0.1], [[1.0]]), "factor"),
        (lambda: CopulaSupports([0.1], [[np.nan]]), "factor"),
        (lambda: CopulaSupports([0.1], [[0.1], [0.1]]), "factor"),
        (lambda: RectifiedGaussian(0.0, 1.0), "mean"),
        (lambda: RectifiedGaussian(1.0, [-1.0]), "deviation"),
        (lambda: Outliers(1.0), "share"),
        (lambda: Outliers(0.1, degrees=0.0), "degrees"),
        (lambda: SizedSupport([1.0, 0.0], 1, 2), "high"),
        (lambda: SizedSupport([1.0, 1.0], 2, 1), "low"),
        (lambda: SizedSupport([1.0, -1.0], 1, 1), "odds"),
        (lambda: zipf(4, low=0.5), "low"),
        (lambda: synth_sae_bench("2k"), "size"),
        (lambda: world_with(offset=[1.0]), "offset"),
        (lambda: world_with(missing=1.0), "missing"),
        (lambda: world_with(outliers=0.1), "outliers"),
        (lambda: world_with(forest=Forest((-1,) * 3)), "forest"),
        (lambda: world_with(values=RectifiedGaussian([1.0, 2.0, 3.0], 1.0)), "mean"),
        (lambda: world_with(values=Uniform(1, 2, True), forest=Forest((-1, 0))), "values"),
        (lambda: world_with(support=UniformSupport(3)), "k"),
        (lambda: world_with(noise=-1.0), "noise"),
    ],
)
def test_what_contradicts_itself_is_refused(make, argument):
    with pytest.raises(ArgumentError) as error:
        make()
    assert error.value.argument == argument
    assert "\n" not in str(error.value)


def world_with(support=None, values=None, **parts):
    support = support or UniformSupport(1)
    return SparseFeatures(np.eye(2), support, values or Uniform(1.0, 2.0), **parts)


def test_samples_are_written_as_they_are_drawn(small, tmp_path, monkeypatch):
    monkeypatch.setattr("shoal.generative.writing.BATCH", 1000)
    write_samples(tmp_path / "a.npz", small, 2500, 3, about={"world": "small"})
    rng = np.random.default_rng(3)
    drawn = [small.sample(count, rng) for count in (1000, 1000, 500)]
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert np.array_equal(file["data"], np.concatenate([each.data for each in drawn]))
        parts = (file["codes_values"], file["codes_units"], file["codes_starts"])
        codes = csr_array(parts, shape=(2500, 40))
        assert json.loads(str(file["world"])) == {"world": "small"}
        assert np.allclose(codes @ file["dictionary"] + file["offset"], file["data"])


def test_a_world_is_made_again_from_its_laws_as_text(small):
    parts = {"offset": np.arange(20.0), "noise": 0.1, "outliers": Outliers(0.1), "missing": 0.1}
    for world in (
        SparseFeatures(small.dictionary, small.support, small.values, small.forest, **parts),
        SparseFeatures(small.dictionary, SizedSupport([1.0] * 40, 1, 3), Uniform(1.0, 2.0)),
    ):
        again = world_of(small.dictionary, json.loads(json.dumps(laws_of(world))))
        first, second = world.sample(200, 0), again.sample(200, 0)
        assert np.array_equal(first.data, second.data, equal_nan=True)
        assert json.loads(json.dumps(world.describe())) == again.describe()
