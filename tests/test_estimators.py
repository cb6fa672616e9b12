"""The scikit-learn face: its contract, its inputs, its checks, and what it recovers."""

import copy
import math
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import shoal
from made import SHORT
from shoal import ArgumentError, DictionaryAutoencoder, Preprocessing, Recipe
from shoal.data import Source
from shoal.estimators import METHODS
from shoal.estimators.inputs import is_source
from shoal.generative import (
    MixtureOfGaussians,
    NonnegativeSparseCoding,
    SparseCoding,
    random_dictionary,
)
from shoal.network import HardThreshold, ReLU, Sigmoid, Softplus, TopK
from shoal.training import (
    RECIPES,
    Constant,
    History,
    NormalizedStep,
    recipe_named,
)
from shoal.vocabulary import Step


def planted(
    m: int = 24, n: int = 16, k: int = 2, n_samples: int = 2000, seed: int = 0
) -> SimpleNamespace:
    world = SparseCoding(
        random_dictionary(m, n, random_state=seed), sparsity=k, low=1.0, high=2.0, noise=0.0
    )
    drawn = world.sample(n_samples, random_state=seed + 100)
    return SimpleNamespace(data=drawn.data, codes=drawn.codes, dictionary=world.dictionary)


def autoencoder(**changes: Any) -> DictionaryAutoencoder:
    return DictionaryAutoencoder(
        **{"n_components": 24, "n_nonzero_coefs": 2, "random_state": 0, **changes}
    )


def hurried(model: str, m: int, k: int, n_samples: int) -> Recipe:
    """The default recipe, which does not wait for what never settles."""
    recipe = recipe_named("default", model, m, k, n_samples)
    assert recipe.refinement is not None
    return replace(recipe, refinement=replace(recipe.refinement, n_steps=300))


def short(**changes: Any) -> DictionaryAutoencoder:
    return autoencoder(recipe=SHORT, **changes)


@pytest.fixture(scope="module")
def world() -> SimpleNamespace:
    made = planted()
    made.data.setflags(write=False)
    return made


@pytest.fixture(scope="module")
def fitted(world: SimpleNamespace) -> DictionaryAutoencoder:
    return autoencoder().fit(world.data)


def same_fit(one: DictionaryAutoencoder, other: DictionaryAutoencoder) -> bool:
    return (
        one.components_.dtype == other.components_.dtype
        and one.components_.tobytes() == other.components_.tobytes()
        and one.bias_.tobytes() == other.bias_.tobytes()
    )


def assert_unit(atoms: np.ndarray, tolerance: float = 1e-5) -> None:
    assert np.isfinite(atoms).all()
    lengths = np.linalg.norm(atoms.astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=tolerance)


# ------------------------------------------------------------------ scikit-learn's contract


@pytest.mark.parametrize(
    "arguments",
    [
        {},  # the defaults in full; the others with a recipe of few steps
        {"model": "nonnegative", "recipe": SHORT},
        {"model": "mixture", "recipe": SHORT},
        {"preprocessing": "whiten", "recipe": SHORT},
        {"preprocessing": "center", "recipe": SHORT},
        {"sparse_output": True, "recipe": SHORT},
    ],
    ids=["default", "nonnegative", "mixture", "whiten", "center", "sparse output"],
)
def test_it_passes_every_check_of_scikit_learn(arguments: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks themselves try what warns
        results = check_estimator(DictionaryAutoencoder(**arguments), on_fail=None, on_skip=None)
    others = {
        result["check_name"]: (result["status"], str(result["exception"]))
        for result in results
        if result["status"] != "passed"
    }
    # Skipped by scikit-learn itself, unless SCIPY_ARRAY_API is set; nothing else may be.
    assert set(others) <= {"check_array_api_input"}, others
    assert all(status == "skipped" for status, _ in others.values())
    assert len(results) > 40


def test_clone_and_params_keep_every_argument() -> None:
    given = {
        "n_components": 5,
        "n_nonzero_coefs": 2,
        "model": "nonnegative",
        "recipe": SHORT,
        "init": "random",
        "preprocessing": Preprocessing("whiten", roll_off=0.3),
        "device": "auto",
        "random_state": 7,
        "sparse_output": True,
        "positive_atoms": True,
        "norms": "clip",
        "missing": "ignore",
        "preset": "activations",
        "encoder": "tied-gain",
        "n_unrolled": 1,
        "joint": True,
    }
    copied = clone(DictionaryAutoencoder(**given))
    params = copied.get_params()
    assert {name: params[name] for name in given} == given
    assert set(params) <= set(given) | {name for name in params if "__" in name}
    assert len(given) <= 16  # arbitrary: more would be a recipe's


def test_it_works_in_a_pipeline(world: SimpleNamespace) -> None:
    pipeline = make_pipeline(StandardScaler(), short())
    codes = pipeline.fit_transform(world.data)
    scaled = StandardScaler().fit_transform(world.data)
    np.testing.assert_array_equal(codes, short().fit(scaled).transform(scaled))
    assert pipeline.get_feature_names_out()[:2].tolist() == [
        "dictionaryautoencoder0",
        "dictionaryautoencoder1",
    ]
    assert pipeline.score(world.data) == short().fit(scaled).score(scaled)


def test_grid_search_prefers_more_active_units(world: SimpleNamespace) -> None:
    search = GridSearchCV(
        DictionaryAutoencoder(24, random_state=0), {"n_nonzero_coefs": [1, 2]}, cv=2
    ).fit(world.data)
    assert search.best_params_ == {"n_nonzero_coefs": 2}
    assert search.best_score_ > 0.8
    assert search.best_estimator_.transform(world.data).astype(bool).sum(axis=1).max() == 2


def test_data_frames_name_columns_in_and_out(world: SimpleNamespace) -> None:
    names = [f"pixel {i}" for i in range(16)]
    frame = pd.DataFrame(world.data, columns=names, index=range(100, 2100))
    model = short().fit(frame)
    assert model.feature_names_in_.tolist() == names
    out = model.set_output(transform="pandas").transform(frame)
    assert out.columns.tolist() == model.get_feature_names_out().tolist()
    assert out.columns[-1] == "dictionaryautoencoder23"
    assert out.index[0] == 100
    assert same_fit(model, short().fit(world.data))
    pd.testing.assert_frame_equal(model.transform(frame[names[::-1]]), out)
    model.fit(world.data)  # and forgets the names
    assert not hasattr(model, "feature_names_in_")


def test_pandas_output_for_all_that_can_be_transformed(
    world: SimpleNamespace, tmp_path: Path
) -> None:
    model = short().fit(world.data)
    plain = model.transform(world.data)
    model.set_output(transform="pandas")
    np.save(tmp_path / "data.npy", world.data)
    for given in (
        str(tmp_path / "data.npy"),
        world.data.tolist(),
        iter([world.data]),
        torch.tensor(world.data),
    ):
        out = model.transform(given)
        assert isinstance(out, pd.DataFrame)
        np.testing.assert_allclose(out.to_numpy(), plain, atol=1e-12)


def test_sparse_output_has_no_frame(world: SimpleNamespace) -> None:
    model = short(sparse_output=True).fit(world.data).set_output(transform="pandas")
    with pytest.raises(ValueError, match="sparse"):  # scikit-learn's own
        model.transform(world.data)


def test_sparse_output_goes_on_through_a_pipeline(world: SimpleNamespace) -> None:
    def both(**changes: Any) -> Any:
        return make_pipeline(short(**changes), MaxAbsScaler()).fit_transform(world.data)

    codes = both(sparse_output=True)
    assert sparse.issparse(codes)
    np.testing.assert_allclose(codes.toarray(), both(), atol=1e-12)


# ------------------------------------------------------------------ inputs


def readonly_memmap(data: np.ndarray, folder: Path) -> np.ndarray:
    np.save(folder / "data.npy", data)
    return np.load(folder / "data.npy", mmap_mode="r")


SAME: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "F order": lambda data, _: np.asfortranarray(data),
    "strided": lambda data, _: np.repeat(np.repeat(data, 2, axis=0), 3, axis=1)[::2, ::3],
    "reversed twice": lambda data, _: np.ascontiguousarray(data[::-1])[::-1],
    "tensor": lambda data, _: torch.tensor(data),
    "transposed tensor": lambda data, _: torch.tensor(np.ascontiguousarray(data.T)).T,
    "tensor with gradient": lambda data, _: torch.tensor(data, requires_grad=True),
    "memmap": readonly_memmap,
    "path": lambda data, folder: Path(readonly_memmap(data, folder).filename),
    "path as text": lambda data, folder: str(readonly_memmap(data, folder).filename),
    "frame": lambda data, _: pd.DataFrame(data),
    "source": lambda data, _: shoal.open_source(data),
    "big endian": lambda data, _: data.astype(data.dtype.newbyteorder(">")),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", SAME)
def test_the_same_rows_give_the_same_bits_however_they_are_held(
    world: SimpleNamespace, tmp_path: Path, kind: str, dtype: str
) -> None:
    data = world.data.astype(dtype)
    expected = short().fit(data)
    given = SAME[kind](data, tmp_path)
    model = short().fit(given)
    assert same_fit(model, expected)
    assert model.components_.dtype == dtype
    codes = model.transform(SAME[kind](data, tmp_path))
    assert codes.dtype == dtype
    np.testing.assert_array_equal(codes, expected.transform(data))
    assert model.inverse_transform(codes).dtype == dtype


@pytest.mark.filterwarnings("ignore:The mean of X:UserWarning")
@pytest.mark.parametrize("dtype", ["int64", "int8", "uint8", "bool", "float16", "object", "list"])
def test_other_numbers_are_read_as_the_floats_they_are(dtype: str) -> None:
    data = np.random.default_rng(0).integers(0, 2, (300, 6))
    given = data.tolist() if dtype == "list" else data.astype(dtype)
    model = short(n_components=6).fit(given)
    wide = dtype in ("int64", "object", "list")
    assert model.components_.dtype == (np.float64 if wide else np.float32)
    assert same_fit(model, short(n_components=6).fit(data.astype(model.components_.dtype)))


def test_iterables_of_batches_agree_with_each_other(world: SimpleNamespace) -> None:
    pieces = np.array_split(world.data, 9)

    def flow() -> Iterator[np.ndarray]:
        yield from pieces

    tensors = torch.utils.data.TensorDataset(torch.tensor(world.data))
    loader = torch.utils.data.DataLoader(tensors, batch_size=250)
    one = short().fit(flow)
    assert same_fit(one, short().fit(flow()))
    assert same_fit(one, short().fit(loader))
    assert same_fit(one, short().fit(lambda: (torch.tensor(piece) for piece in pieces)))
    assert_unit(one.components_, 1e-12)
    np.testing.assert_array_equal(one.transform(flow()), one.transform(world.data))
    np.testing.assert_array_equal(one.transform(loader), one.transform(world.data))


def test_a_stream_of_rows_recovers_the_dictionary(world: SimpleNamespace) -> None:
    model = autoencoder().fit(lambda: iter(np.array_split(world.data, 7)))
    assert shoal.recovery(model.components_, world.dictionary).recovered(0.95) == 1


def test_a_refit_on_a_stream_takes_the_new_number_of_atoms(world: SimpleNamespace) -> None:
    model = short().fit(world.data).set_params(n_components=11)
    assert model.fit(iter([world.data])).components_.shape == (11, 16)


@pytest.mark.parametrize("kind", ["C", "F", "memmap", "tensor"])
@pytest.mark.parametrize("preprocessing", ["none", "scale", "whiten"])
def test_no_input_is_written_to(
    world: SimpleNamespace, tmp_path: Path, kind: str, preprocessing: str
) -> None:
    if kind == "memmap":
        np.save(tmp_path / "data.npy", world.data)
        data: Any = np.load(tmp_path / "data.npy", mmap_mode="r+")  # writable: may, but must not
    elif kind == "tensor":
        data = torch.tensor(world.data)
    else:
        data = np.array(world.data, order=kind)
    init = np.array(random_dictionary(24, 16, random_state=3), order="F" if kind == "F" else "C")
    init *= 2
    before = init.tobytes()
    model = short(preprocessing=preprocessing, init=init).fit(data)
    codes = model.transform(data)
    kept = codes.copy()
    model.partial_fit(data).score(data)
    model.inverse_transform(codes)
    assert np.asarray(data).tobytes() == world.data.tobytes()
    assert init.tobytes() == before
    assert codes.tobytes() == kept.tobytes()


@pytest.mark.parametrize("kind", ["memmap", "F memmap", "array", "F array", "tensor"])
def test_large_data_is_never_copied_whole(tmp_path: Path, kind: str) -> None:
    shape = (160_000, 64)
    data = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    if kind.startswith("F"):
        data = np.asfortranarray(data)
    if kind.endswith("memmap"):
        data = readonly_memmap(data, tmp_path)
    data.flags.writeable = False
    size = data.nbytes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that this array isn't writable
        given = torch.from_numpy(data) if kind == "tensor" else data
    recipe = Recipe(TopK(2), NormalizedStep(Constant(0.3)), 3, 256)
    model = autoencoder(recipe=recipe, n_components=8)
    steps: list[Step] = []
    tracemalloc.start()
    try:
        steps.extend(model.iter_fit(given))
        _, fit_peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for block in model.iter_transform(given):
            assert block.shape[1] == 8
        model.score(given)
        _, use_peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(steps) == 3
    assert fit_peak < size / 2
    assert use_peak < size / 2


def test_the_same_seed_gives_the_same_bits_and_another_gives_others(
    world: SimpleNamespace,
) -> None:
    one = short(random_state=5).fit(world.data)
    torch.rand(3), np.random.seed(3)  # noqa: NPY002  global randomness must not matter
    assert same_fit(one, short(random_state=5).fit(world.data))
    assert not same_fit(one, short(random_state=6).fit(world.data))
    state = short(random_state=np.random.RandomState(5))
    assert same_fit(one, state.fit(world.data))
    assert not same_fit(one, state.fit(world.data))  # a RandomState moves on


def test_a_second_fit_starts_anew(world: SimpleNamespace) -> None:
    model = short().fit(world.data)
    first = model.components_.copy()
    np.testing.assert_array_equal(model.fit(world.data).components_, first)
    assert model.fit(planted(seed=1).data).components_.tobytes() != first.tobytes()


# ------------------------------------------------------------------ iter_fit


def test_iter_fit_yields_steps_and_ends_as_fit_does(world: SimpleNamespace) -> None:
    model = short()
    steps = list(model.iter_fit(world.data))
    assert all(isinstance(step, Step) for step in steps)
    descent = [step for step in steps if step.phase == "descent"]
    assert [step.number for step in descent] == list(range(1, 13))
    assert {step.phase for step in steps} == {"descent", "polish"}
    assert steps[-1].progress == 1
    assert model.n_steps_ == 12
    assert same_fit(model, short().fit(world.data))


@pytest.mark.parametrize("steps", [0, 1, 13])
def test_a_dropped_fit_leaves_the_model_unfitted(world: SimpleNamespace, steps: int) -> None:
    model = short()
    before = dict(vars(model))
    flow = model.iter_fit(world.data)
    for _ in range(steps):
        next(flow)
    flow.close()
    assert vars(model) == before
    with pytest.raises(NotFittedError):
        model.transform(world.data)


def test_a_dropped_refit_leaves_the_model_as_it_was(world: SimpleNamespace) -> None:
    frame = pd.DataFrame(world.data, columns=[f"c{i}" for i in range(16)])
    model = short().fit(frame)
    before = dict(vars(model))
    codes = model.transform(frame)
    next(model.iter_fit(world.data[:, :5]))
    assert vars(model) == before
    np.testing.assert_array_equal(model.transform(frame), codes)


def test_a_refused_refit_leaves_the_model_as_it_was(world: SimpleNamespace) -> None:
    model = short().fit(world.data)
    before = dict(vars(model))
    with pytest.raises(ArgumentError, match="n_components"):
        model.fit(world.data[:10, :5])
    assert vars(model) == before
    assert model.transform(world.data).shape == (2000, 24)


def test_fit_returns_the_model(world: SimpleNamespace) -> None:
    model = short()
    assert model.fit(world.data) is model
    assert model.partial_fit(world.data) is model


# ------------------------------------------------------------------ what decides


@pytest.mark.parametrize("how", ["fit", "partial_fit"])
@pytest.mark.parametrize("kind", [np.asarray, np.ndarray.tolist])
def test_an_array_to_start_from_says_how_many_atoms(
    world: SimpleNamespace, how: str, kind: Callable[[np.ndarray], Any]
) -> None:
    init = kind(random_dictionary(9, 16, random_state=1))
    recipe = replace(SHORT, revival=None)
    model = getattr(autoencoder(n_components=None, init=init, recipe=recipe), how)(world.data)
    assert len(model.components_) == 9
    with pytest.raises(ArgumentError, match=r"^init: found an array of shape \(9, 16\)"):
        getattr(autoencoder(n_components=10, init=init), how)(world.data)
    with pytest.raises(ArgumentError, match=r"^init: found .* no array of numbers"):
        getattr(autoencoder(n_components=None, init=[[1, 2], [3]]), how)(world.data)


AFTERWARDS = {
    "model": "mixture",
    "n_nonzero_coefs": 7,
    "n_components": 3,
    "recipe": "nguyen2019-nonnegative-relu",
    "preprocessing": "whiten",
    "init": "pca",
}


@pytest.mark.parametrize("name", AFTERWARDS)
def test_arguments_set_after_a_fit_are_for_the_next_one(
    world: SimpleNamespace, name: str, tmp_path: Path
) -> None:
    data = np.abs(world.data)
    model = short(model="nonnegative", preprocessing="scale").fit(data)
    twin = copy.deepcopy(model)
    before = {method: model.transform(data[:50], method) for method in METHODS}
    scores = {method: model.score(data, method=method) for method in METHODS}
    model.set_params(**{name: AFTERWARDS[name]})
    for method, codes in before.items():
        np.testing.assert_array_equal(model.transform(data[:50], method), codes)
        assert model.score(data, method=method) == scores[method]
    assert model.model_ == "nonnegative"
    loaded = shoal.load_run(shoal.save_run(model, tmp_path / "run", data))
    np.testing.assert_array_equal(loaded.transform(data[:50], "omp"), before["omp"])
    assert loaded.get_params()["n_nonzero_coefs"] == 2
    assert loaded.model == loaded.model_ == "nonnegative"
    assert same_fit(model.partial_fit(data[:30]), twin.partial_fit(data[:30]))
    assert model.model_ == "nonnegative"
    if name == "model":
        assert model.set_params(n_nonzero_coefs=1).fit(data).model_ == "mixture"


# ------------------------------------------------------------------ partial_fit


def test_one_stream_is_many_calls(world: SimpleNamespace) -> None:
    # Rows of a stream keep their order, so that the steps are the same. Half of the atoms
    # repeat the other half: only counts that carry over calls can get them replaced, for
    # revival looks every five steps and a call has one.
    init = np.tile(random_dictionary(12, 16, random_state=9), (2, 1))
    pieces = [world.data[at : at + 64] for at in range(0, 64 * 12, 64)]
    together = short(init=init).partial_fit(iter(pieces))
    apart = short(init=init)
    for number, piece in enumerate(pieces, start=1):
        apart.partial_fit(iter([piece]))
        assert apart.n_steps_ == number
    assert same_fit(together, apart)
    cosines = together.components_ @ together.components_.T - np.eye(24)
    assert np.abs(cosines).max() < 0.9  # the duplicates are gone


def test_of_a_stream_no_more_is_kept_than_is_asked_for(
    world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    draw = Source.draw

    def spied(self: Source, n: int, *given: Any, **named: Any) -> np.ndarray:
        asked.append(n)
        return draw(self, n, *given, **named)

    monkeypatch.setattr(Source, "draw", spied)
    short().partial_fit(iter([world.data]))
    assert asked == [10 * 24, 10 * 24]  # whether there are enough, and rows to start from
    asked.clear()
    wide = replace(SHORT, polish=replace(SHORT.polish, max_samples=70_000))
    autoencoder(recipe=wide).fit(iter([world.data]))
    assert max(asked) == 70_000
    asked.clear()
    autoencoder(recipe=replace(SHORT, polish=None)).fit(iter([world.data]))
    assert set(asked) == {10 * 24}


def test_auto_takes_data_beyond_the_range_of_float32(world: SimpleNamespace) -> None:
    found = autoencoder(n_nonzero_coefs="auto").fit(1e30 * world.data)
    assert found.n_nonzero_coefs_ == 2
    assert_unit(found.components_)


def test_the_step_size_goes_on_over_calls_and_then_stays(world: SimpleNamespace) -> None:
    model = autoencoder()
    pieces = np.array_split(world.data, 10)
    moved = []
    for _ in range(30):
        for piece in pieces:
            before = getattr(model, "components_", None)
            model.partial_fit(piece)
            if before is not None:
                moved.append(np.abs(model.components_ - before).max())
    assert model.n_steps_ == 30 * len(world.data) // model.recipe_.batch_size
    assert np.median(moved[-20:]) < 0.2 * np.median(moved[:20])


def test_partial_fit_recovers_a_dictionary_chunk_by_chunk() -> None:
    world = planted(48, 32, 2, 8000)
    model = autoencoder(n_components=48)
    for _ in range(3):
        for piece in np.array_split(world.data, 10):
            model.partial_fit(piece)
    # A fit gets nearer still, by its polish.
    assert shoal.recovery(model.components_, world.dictionary).max_distance < 1e-3


@pytest.mark.parametrize(("model", "start"), [("mixture", "residual"), ("sparse", "data")])
def test_where_atoms_start_by_default(world: SimpleNamespace, model: str, start: str) -> None:
    changes = {"model": model, "n_nonzero_coefs": 1, "recipe": SHORT}
    default = autoencoder(**changes).fit(world.data)
    assert same_fit(default, autoencoder(init="auto", **changes).fit(world.data))
    assert same_fit(default, autoencoder(init=start, **changes).fit(world.data))
    other = {"residual": "data", "data": "residual"}[start]
    assert not same_fit(default, autoencoder(init=other, **changes).fit(world.data))


def test_partial_fit_goes_on_from_fit(
    world: SimpleNamespace, fitted: DictionaryAutoencoder
) -> None:
    model = autoencoder().fit(world.data)
    model.partial_fit(world.data)
    assert model.n_steps_ > fitted.n_steps_
    found = shoal.recovery(model.components_, fitted.components_)
    assert 0 < found.max_distance < 0.3
    assert found.permutation.tolist() == list(range(24))  # the same atoms, a little moved


def test_partial_fit_keeps_float32_and_its_preprocessing(world: SimpleNamespace) -> None:
    data = world.data.astype(np.float32)
    model = short(preprocessing="scale").partial_fit(data[:500])
    statistics = model.preprocessing_.arrays
    model.partial_fit(100 * data)
    assert model.components_.dtype == np.float32
    assert model.preprocessing_.arrays is statistics
    assert_unit(model.components_)


def test_partial_fit_may_see_fewer_rows_than_atoms(world: SimpleNamespace) -> None:
    model = short()
    for row in world.data[:40]:
        model.partial_fit(row[None])
    assert_unit(model.components_)
    with pytest.raises(ValueError, match="features"):
        model.partial_fit(world.data[:, :3])


# ------------------------------------------------------------------ codes and back


@pytest.fixture(scope="module", params=["sparse", "nonnegative", "mixture"])
def of_each_model(request: Any, world: SimpleNamespace) -> DictionaryAutoencoder:
    k = 1 if request.param == "mixture" else 2
    recipe = hurried(request.param, 24, k, len(world.data))
    return autoencoder(n_nonzero_coefs=k, model=request.param, recipe=recipe).fit(world.data)


@pytest.mark.parametrize("method", METHODS)
def test_codes_have_at_most_k_active_units(
    world: SimpleNamespace, of_each_model: DictionaryAutoencoder, method: str
) -> None:
    codes = of_each_model.transform(world.data, method)
    assert codes.shape == (2000, 24)
    assert ((codes != 0).sum(axis=1) <= of_each_model.n_nonzero_coefs).all()
    assert (codes < 0).any() == (of_each_model.model == "sparse")


def test_k_units_are_active_on_every_row(
    world: SimpleNamespace, fitted: DictionaryAutoencoder
) -> None:
    codes = fitted.transform(world.data)
    assert ((codes != 0).sum(axis=1) == 2).all()
    np.testing.assert_array_equal(codes, fitted.fit_transform(world.data))


def test_least_squares_and_pursuit_explain_more_than_the_encoder(
    world: SimpleNamespace, fitted: DictionaryAutoencoder
) -> None:
    def residual(method: str) -> np.ndarray:
        rebuilt = fitted.inverse_transform(fitted.transform(world.data, method))
        return np.square(world.data - rebuilt).sum(axis=1)

    encoder, best, *pursuits = map(residual, METHODS)
    assert (best <= encoder + 1e-9).all()
    assert best.mean() < 0.5 * encoder.mean()
    for pursuit in pursuits:
        assert pursuit.mean() < 0.5 * encoder.mean()
    # Least squares keeps the encoder's support.
    codes, solved = (fitted.transform(world.data, method) for method in METHODS[:2])
    np.testing.assert_array_equal(codes != 0, solved != 0)
    # The dictionary is all but exact here, and so is the pursuit's code of the data.
    assert fitted.score(world.data, method="omp") > 0.98


def test_the_encoder_is_the_k_largest_correlations(
    world: SimpleNamespace, fitted: DictionaryAutoencoder
) -> None:
    z = world.data @ fitted.encoder_.T + fitted.bias_
    kth = np.sort(np.abs(z), axis=1)[:, -2:-1]
    np.testing.assert_allclose(
        fitted.transform(world.data), np.where(np.abs(z) >= kth, z, 0), atol=1e-12
    )


@pytest.mark.parametrize("stream", [False, True])
def test_transform_in_blocks_is_transform(
    world: SimpleNamespace,
    fitted: DictionaryAutoencoder,
    monkeypatch: pytest.MonkeyPatch,
    stream: bool,
) -> None:
    blocks = list(fitted.iter_transform(world.data, batch_size=300))
    assert [len(block) for block in blocks] == [300] * 6 + [200]
    codes = fitted.transform(world.data)
    np.testing.assert_allclose(np.concatenate(blocks), codes, atol=1e-12)
    given = iter([world.data]) if stream else world.data
    monkeypatch.setattr("shoal.estimators.base._CHUNK", 300)
    np.testing.assert_allclose(fitted.transform(given), codes, atol=1e-12)


ACTIVATIONS = [TopK(3), TopK(2, signed=False), HardThreshold(1.0), ReLU(), Sigmoid(), Softplus()]


def without_training(activation: Any, data: np.ndarray, **changes: Any) -> DictionaryAutoencoder:
    recipe = Recipe(activation, NormalizedStep(Constant(1e-9)), 1, 64)
    return autoencoder(recipe=recipe, **changes).fit(data)


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("codes were made dense")


@pytest.fixture
def no_dense_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("estimators.base.fast_encode", "network.codes.SparseCodes.dense"):
        monkeypatch.setattr(f"shoal.{name}", refuse)
    for name in ("toarray", "todense"):
        monkeypatch.setattr(sparse.csr_array, name, refuse)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_sparse_output_is_the_dense_output_without_its_zeros(
    world: SimpleNamespace, activation: Any, method: str, dtype: str
) -> None:
    data = world.data[:200].astype(dtype)
    model = without_training(activation, data)
    expected = model.transform(data, method)
    codes = model.set_params(sparse_output=True).transform(data, method)
    assert type(expected) is np.ndarray
    assert type(codes) is sparse.csr_array
    assert codes.shape == (200, 24)
    assert codes.dtype == dtype
    assert codes.indices.dtype == np.int32
    assert codes.has_canonical_format
    assert codes.nnz == np.count_nonzero(expected)
    np.testing.assert_allclose(codes.toarray(), expected, atol=1e-5 if dtype == "float32" else 1e-9)


@pytest.mark.parametrize("stream", [False, True])
def test_sparse_output_in_blocks(
    world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, no_dense_codes: None, stream: bool
) -> None:
    model = without_training(TopK(2), world.data, sparse_output=True)
    given = (lambda: iter([world.data])) if stream else world.data
    codes = model.transform(given)
    blocks = list(model.iter_transform(given, batch_size=300))
    assert [block.shape for block in blocks] == [(300, 24)] * 6 + [(200, 24)]
    assert {type(block) for block in blocks} == {sparse.csr_array}
    assert abs(sparse.vstack(blocks) - codes).max() < 1e-12
    monkeypatch.setattr("shoal.estimators.base._CHUNK", 300)
    stacked = model.transform(given)
    assert type(stacked) is sparse.csr_array
    assert stacked.has_canonical_format
    assert abs(stacked - codes).max() < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_nothing_dense_is_made_that_nobody_asked_for(
    world: SimpleNamespace, no_dense_codes: None, method: str
) -> None:
    for activation in (TopK(3), HardThreshold(1.0)):
        model = without_training(activation, world.data, sparse_output=True)
        codes = model.transform(world.data, method)
        assert model.inverse_transform(codes).shape == world.data.shape
        assert model.set_params(sparse_output=False).score(world.data, method=method) < 1
        found = model.diagnose(world.data, method)
        assert found.l0 == pytest.approx(codes.nnz / 2000)


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_sparse_output_is_checked_where_it_is_used(
    world: SimpleNamespace, fitted: DictionaryAutoencoder, value: Any
) -> None:
    model = clone(fitted).fit(world.data).set_params(sparse_output=value)
    for use in (model.transform, model.iter_transform):
        with pytest.raises(ArgumentError, match=r"^sparse_output: found .*; needed True or False"):
            use(world.data)


def test_a_numpy_boolean_is_one(world: SimpleNamespace) -> None:
    model = short(sparse_output=np.bool_(True)).fit(world.data)
    assert sparse.issparse(model.transform(world.data))


@pytest.mark.parametrize(
    ("activation", "forms"),
    [
        (TopK(2), [sparse.csr_array] * 3),
        (ReLU(), [sparse.csr_array, np.ndarray, np.ndarray]),  # half of the units are active
        (Sigmoid(), [np.ndarray] * 3),
    ],
    ids=repr,
)
def test_codes_come_in_the_form_that_is_faster(
    world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, activation: Any, forms: list[type]
) -> None:
    model = without_training(activation, world.data, preprocessing="scale")
    whole = model.transform(world.data)
    monkeypatch.setattr("shoal.estimators.base._CHUNK", 700)
    blocks = list(model.iter_coded(world.data))
    assert [type(codes) for _, codes, _ in blocks] == forms
    codes = np.concatenate([sparse.csr_array(block).toarray() for _, block, _ in blocks])
    np.testing.assert_allclose(codes, whole, atol=1e-12)
    data, rebuilt = (np.concatenate([block[part] for block in blocks]) for part in (0, 2))
    scaled = world.data - world.data.mean(axis=0)
    np.testing.assert_allclose(data, scaled / world.data.std(axis=0), atol=1e-9)
    np.testing.assert_allclose(rebuilt, whole @ model.components_, atol=1e-12)
    fvu = np.square(data - rebuilt).sum() / np.square(data - data.mean(axis=0)).sum()
    assert model.score(world.data) == pytest.approx(1 - fvu, rel=1e-9)
    assert model.diagnose(world.data).histogram.tolist() == (
        np.bincount((whole != 0).sum(axis=1), minlength=25).tolist()
    )


def test_atoms_lie_in_memory_as_rows(fitted: DictionaryAutoencoder) -> None:
    # In columns the same codes would differ in their last bits from those of a loaded run.
    assert fitted.components_.flags.c_contiguous


@pytest.mark.filterwarnings("ignore:The mean of X:UserWarning")
@pytest.mark.parametrize("kind", ["none", "center", "scale", "whiten"])
def test_inverse_transform_undoes_the_preprocessing(kind: str) -> None:
    # As many active units as orthonormal atoms: the code loses nothing.
    rng = np.random.default_rng(0)
    data = rng.standard_normal((200, 6)) * [1, 2, 3, 4, 5, 6] + 10
    atoms = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    still = Recipe(TopK(6), NormalizedStep(Constant(1e-12)), 1, 50)
    model = DictionaryAutoencoder(
        6, 6, recipe=still, init=atoms, preprocessing=kind, random_state=0
    ).fit(data)
    np.testing.assert_allclose(model.components_, atoms, atol=1e-9)
    codes = model.transform(data)
    back = model.inverse_transform(codes)
    np.testing.assert_allclose(back, data, atol=1e-6)
    again = model.inverse_transform(sparse.csr_matrix(codes))
    assert isinstance(again, np.ndarray)
    np.testing.assert_allclose(again, back, atol=1e-9)
    np.testing.assert_allclose(model.inverse_transform(sparse.coo_array(codes)), back, atol=1e-9)
    assert model.score(data) == pytest.approx(1, abs=1e-9)


def test_inverse_transform_refuses_codes_of_another_model(fitted: DictionaryAutoencoder) -> None:
    with pytest.raises(ArgumentError, match=r"X: found 3 columns; needed codes of 24 atoms"):
        fitted.inverse_transform(np.ones((2, 3)))


@pytest.mark.parametrize("kind", ["none", "scale"])
@pytest.mark.parametrize("method", METHODS)
def test_score_is_one_minus_fvu(world: SimpleNamespace, kind: str, method: str) -> None:
    data = world.data * np.arange(1, 17) + 3
    model = short(preprocessing=kind).fit(data)
    seen = (data - data.mean(axis=0)) / data.std(axis=0) if kind == "scale" else data
    rebuilt = model.transform(data, method) @ model.components_
    fvu = np.square(seen - rebuilt).sum() / np.square(seen - seen.mean(axis=0)).sum()
    assert model.score(data, method=method) == pytest.approx(1 - fvu, rel=1e-9)


def test_score_where_the_data_do_not_vary() -> None:
    constant = np.tile([[3.0, 4.0]], (20, 1))
    exact = DictionaryAutoencoder(1, 1, random_state=0).fit(constant)
    assert exact.score(np.zeros((5, 2))) == 1
    assert exact.score(np.tile([[4.0, -3.0]], (5, 1))) == 0


def test_diagnose_speaks_of_this_model(
    world: SimpleNamespace, fitted: DictionaryAutoencoder
) -> None:
    found = fitted.diagnose(world.data)
    codes = fitted.transform(world.data)
    assert found.n_samples == 2000
    assert found.l0 == 2
    assert found.activation_fraction == pytest.approx(2 / 24)
    assert found.explained_variance == fitted.score(world.data)
    np.testing.assert_allclose(found.atom_activation, (codes != 0).mean(axis=0))
    assert fitted.diagnose(world.data, "omp").mse < found.mse


# ------------------------------------------------------------------ recovery


@pytest.mark.parametrize("seed", [11, 12])
@pytest.mark.parametrize("model", ["sparse", "nonnegative", "mixture"])
def test_every_atom_is_recovered_from_data_alone(model: str, seed: int) -> None:
    # The three calls at a smaller size.
    made: Any
    if model == "sparse":
        truth = random_dictionary(48, 32, random_state=seed)
        made, k, rows = SparseCoding(truth, sparsity=2, low=1.0, high=2.0, noise=0.0), 2, 6000
    elif model == "nonnegative":
        truth = random_dictionary(64, 40, random_state=seed)
        made = NonnegativeSparseCoding(truth, sparsity=3, low=1.0, high=2.0, noise=0.0)
        k, rows = 3, 8000
    else:
        truth = random_dictionary(10, 128, random_state=seed)
        made, k, rows = MixtureOfGaussians(truth, noise=0.02), 1, 2000
    data = made.sample(rows, random_state=seed + 1).data
    found = DictionaryAutoencoder(len(truth), k, model=model, random_state=seed).fit(data)
    score = shoal.recovery(found.components_, made.dictionary)
    assert score.recovered(0.95) == 1
    assert score.mean_distance < 0.1


def test_float32_recovers_as_well(world: SimpleNamespace) -> None:
    model = autoencoder().fit(world.data.astype(np.float32))
    assert shoal.recovery(model.components_, world.dictionary).recovered(0.95) == 1


def test_defaults_of_the_sizes(world: SimpleNamespace) -> None:
    assert DictionaryAutoencoder(random_state=0).fit(world.data).components_.shape == (16, 16)
    assert DictionaryAutoencoder(random_state=0).fit(world.data[:7]).components_.shape == (7, 16)
    wide = DictionaryAutoencoder(24, random_state=0).fit(world.data)
    assert wide.recipe_.activation == TopK(2)  # a tenth of the atoms
    clusters = np.repeat(world.dictionary, 10, axis=0)
    mixture = DictionaryAutoencoder(24, model="mixture", random_state=0).fit(clusters)
    assert mixture.recipe_.activation == TopK(1, signed=False)


# ------------------------------------------------------------------ recipes and history


def test_history_is_plain_numbers_in_order(fitted: DictionaryAutoencoder) -> None:
    records = fitted.history_
    assert 20 < len(records) <= 300
    names = {"step", "phase", "progress", "loss", "explained_variance", "learning_rate"}
    names |= {"activation_fraction", "replaced", "seconds"}
    for record in records:
        assert set(record) == names
        for value in record.values():
            assert value is None or isinstance(value, (int, float, str))
            assert not isinstance(value, float) or math.isfinite(value)
    descent = [record for record in records if record["phase"] != "polish"]
    assert descent[-1]["step"] == fitted.n_steps_
    assert descent[-1]["progress"] == 1
    steps = [record["step"] for record in descent]
    assert steps == sorted(set(steps))
    phases = [record["phase"] for record in records]
    assert list(dict.fromkeys(phases)) == ["descent", "refinement", "polish"]
    assert phases == sorted(phases, key=["descent", "refinement", "polish"].index)
    assert records[-1]["explained_variance"] > records[0]["explained_variance"]
    assert 0 < descent[0]["activation_fraction"] <= 2 / 24 + 1e-6
    seconds = [record["seconds"] for record in records]
    assert seconds == sorted(seconds)


def made_step(number: int, loss: float = 1.0, variance: float = 2.0, replaced: int = 0) -> Step:
    return Step(
        number=number,
        phase="descent",
        progress=number / 10,
        parameters=None,  # type: ignore[arg-type]
        loss=torch.tensor(loss),
        variance=torch.tensor(variance),
        learning_rate=0.1,
        activation_fraction=torch.tensor(0.5),
        replaced=replaced,
    )


def test_history_averages_what_lies_between_two_records() -> None:
    history = History(most=2)
    for number in range(1, 11):
        history.add(made_step(number, loss=float(number), variance=20.0, replaced=1))
    records = history.close()
    assert [record["step"] for record in records] == [4, 10]
    assert [record["loss"] for record in records] == [2.5, 7.5]
    assert [record["replaced"] for record in records] == [4, 6]
    assert records[0]["explained_variance"] == pytest.approx(1 - 2.5 / 20)
    assert history.close() == records


@pytest.mark.parametrize(
    ("loss", "variance"), [(1.0, 0.0), (math.inf, 1.0), (math.inf, math.inf), (math.nan, 1.0)]
)
def test_history_has_no_number_that_json_lacks(loss: float, variance: float) -> None:
    history = History()
    history.add(made_step(10, loss, variance))
    (record,) = history.close()
    assert record["explained_variance"] is None
    assert record["loss"] is None or math.isfinite(record["loss"])


def test_a_recipe_of_your_own_is_used(world: SimpleNamespace) -> None:
    model = short(n_nonzero_coefs=5).fit(world.data)
    assert model.recipe_ is SHORT
    assert ((model.transform(world.data) != 0).sum(axis=1) == 2).all()


def test_a_dense_activation_works_throughout(world: SimpleNamespace) -> None:
    recipe = Recipe(ReLU(), NormalizedStep(Constant(0.1)), 5, None, bias=Constant(-0.1))
    model = autoencoder(recipe=recipe).fit(world.data)
    assert (model.bias_ == -0.1).all()
    z = world.data @ model.components_.T - 0.1
    np.testing.assert_allclose(model.transform(world.data), np.maximum(z, 0), atol=1e-12)
    assert {record["phase"] for record in model.history_} == {"descent"}
    for method in METHODS:
        assert np.isfinite(model.transform(world.data[:50], method)).all()


# End to end, for 600 steps: they have tests of their own.
TRAINED = ("batchtopk", "jumprelu", "matryoshka")


@pytest.mark.filterwarnings("ignore:.*leaves? the basin")
@pytest.mark.parametrize("name", [name for name in RECIPES if name not in TRAINED])
def test_every_named_recipe_fits(world: SimpleNamespace, name: str) -> None:
    usual = {"default": "sparse", "incoherent": "sparse"}
    model = usual.get(name) or (name.split("-")[1] if "nguyen" in name else "nonnegative")
    k = 1 if model == "mixture" else 2
    found = autoencoder(model=model, recipe=name, n_nonzero_coefs=k).fit(world.data)
    assert_unit(found.components_)
    wanted = RECIPES[name](model, 24, k, 2000)
    if name == "incoherent":  # its pursuit knows the encoder's thresholds
        wanted = replace(wanted, pursuit=found.recipe_.pursuit)
    if name == "default":
        wanted = replace(wanted, encoder=replace(wanted.encoder, weights="untied"))
    assert found.recipe_ == wanted


def test_a_fit_warns_where_its_recipe_leaves_the_basin(world: SimpleNamespace) -> None:
    def fitted(name: str) -> Any:
        return autoencoder(model="mixture", recipe=name, n_nonzero_coefs=1).fit(world.data)

    with pytest.warns(UserWarning, match="the atoms leave the basin; floor=-0.2"):
        fitted("nguyen2019-mixture-relu")
    fitted("nguyen2019-mixture-relu-stable")


# ------------------------------------------------------------------ bad input


BAD_ARGUMENTS = {
    "k > m": ({"n_nonzero_coefs": 25}, "n_nonzero_coefs"),
    "k < 1": ({"n_nonzero_coefs": 0}, "n_nonzero_coefs"),
    "k not whole": ({"n_nonzero_coefs": 1.5}, "n_nonzero_coefs"),
    "k of a mixture": ({"model": "mixture", "n_nonzero_coefs": 2}, "n_nonzero_coefs"),
    "m < 1": ({"n_components": 0}, "n_components"),
    "m negative": ({"n_components": -3}, "n_components"),
    "m a float": ({"n_components": 24.0}, "n_components"),
    "m a text": ({"n_components": "24"}, "n_components"),
    "m a bool": ({"n_components": True}, "n_components"),
    "fewer samples than atoms": ({"n_components": 2001}, "n_components"),
    "model": ({"model": "dense"}, "model"),
    "no model": ({"model": None}, "model"),
    "recipe": ({"recipe": "fast"}, "recipe"),
    "recipe of another model": ({"recipe": "nguyen2019-mixture-relu"}, "model"),
    "mixture, recipe of sparse": (
        {"model": "mixture", "recipe": "nguyen2019-sparse-threshold", "n_nonzero_coefs": 1},
        "model",
    ),
    "init": ({"init": "kmeans"}, "init"),
    "init None": ({"init": None}, "init"),
    "init shape": ({"init": np.ones((24, 15))}, "init"),
    "init NaN": ({"init": np.full((24, 16), np.nan)}, "init"),
    "init zero": ({"init": np.zeros((24, 16))}, "init"),
    "preprocessing": ({"preprocessing": "pca"}, "preprocessing"),
    "preprocessing type": ({"preprocessing": 3}, "preprocessing"),
    "device": ({"device": "abacus"}, "device"),
    "device without numbers": ({"device": "meta"}, "device"),
    "no device": ({"device": None}, "device"),
    "sparse_output": ({"sparse_output": "yes"}, "sparse_output"),
    "sparse_output a number": ({"sparse_output": 1}, "sparse_output"),
    "sparse_output None": ({"sparse_output": None}, "sparse_output"),
    "seed": ({"random_state": -1}, "random_state"),
    "seed too large": ({"random_state": 2**32}, "random_state"),
    "seed type": ({"random_state": np.random.default_rng(0)}, "random_state"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
@pytest.mark.parametrize("how", ["fit", "iter_fit", "partial_fit"])
def test_a_bad_argument_is_named_in_one_line_before_any_work(
    world: SimpleNamespace, case: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case == "fewer samples than atoms" and how == "partial_fit":
        return  # a stream of pieces has no such bound
    changes, argument = BAD_ARGUMENTS[case]

    def work(*_: Any, **__: Any) -> Any:
        raise AssertionError("work began")

    monkeypatch.setattr("shoal.training.pieces.descend", work)
    monkeypatch.setattr("shoal.estimators.dictionary.run", work)
    model = autoencoder(**changes)
    before = dict(vars(model))
    with pytest.raises(ValueError, match=rf"^{argument}: found .*; needed .*$") as caught:
        getattr(model, how)(world.data)  # iter_fit: at the call, no step asked for
    assert isinstance(caught.value, ArgumentError)
    assert caught.value.argument == argument
    assert "\n" not in str(caught.value)
    assert vars(model) == before


def broken(value: float) -> np.ndarray:
    data = np.random.default_rng(0).standard_normal((200, 16))
    data[17, 3] = value
    return data


BAD_DATA: dict[str, tuple[Callable[[], Any], str]] = {
    "NaN": (lambda: broken(np.nan), "X contains NaN"),
    "inf": (lambda: broken(np.inf), "X contains infinity"),
    "NaN tensor": (lambda: torch.tensor(broken(np.nan)), "data: found nan at row 17, column 3"),
    "inf float32": (lambda: torch.tensor(broken(-np.inf)).float(), "data: found -inf at row 17"),
    "NaN stream": (lambda: iter([broken(np.nan)]), "source: found nan at row 17, column 3"),
    "1-d": (lambda: np.ones(200), "Expected 2D array"),
    "1-d tensor": (lambda: torch.ones(200), r"data: found tensor of shape \(200,\)"),
    "3-d": (lambda: np.full((5, 4, 4), np.nan), "data: found nan at row 0, column 0 of array"),
    "no rows": (lambda: np.empty((0, 16)), "0 sample"),
    "no columns": (lambda: np.empty((200, 0)), "0 feature"),
    "an empty stream": (lambda: iter([]), "source: found stream without rows"),
    "no data": (lambda: None, "Expected 2D array"),
    "no such file": (lambda: "missing.npy", "source: found no file"),
    "complex": (lambda: np.ones((200, 16)) + 1j, "Complex data not supported"),
    "text": (lambda: np.full((200, 16), "a"), "numeric"),
    "masked": (lambda: np.ma.masked_array(np.ones((200, 16))), "data: found a masked array"),
    "too large": (lambda: broken(0) * 1e200, "X: found values of up to"),
    "too small": (lambda: broken(0) * 1e-200, "X: found values of up to"),
    "denormal": (lambda: broken(0) * 1e-310, "X: found values of up to"),
}


@pytest.mark.parametrize("case", BAD_DATA)
@pytest.mark.parametrize("how", ["fit", "partial_fit", "transform"])
def test_bad_data_is_refused(fitted: DictionaryAutoencoder, case: str, how: str) -> None:
    make, message = BAD_DATA[case]
    if how == "transform":
        if case in ("too large", "too small", "denormal"):
            assert np.isfinite(fitted.transform(make())).all()
            return
        # Where only the width is wrong, that is said first.
        with pytest.raises(ValueError, match=message):
            fitted.transform(make())
        return
    with pytest.raises(ValueError, match=message) as caught:
        getattr(short(), how)(make())
    if isinstance(caught.value, ArgumentError):
        assert "\n" not in str(caught.value)


def test_bad_data_is_refused_at_the_call_of_iter_fit() -> None:
    for case in ("NaN", "inf", "NaN tensor", "1-d", "no rows", "no such file"):
        make, message = BAD_DATA[case]
        with pytest.raises(ValueError, match=message):
            short().iter_fit(make())


def test_scaling_makes_data_of_any_unit_fit() -> None:
    data = broken(0).astype(np.float32)
    expected = short(preprocessing="scale").fit(data)
    for factor in (1e30, 1e-30):
        model = short(preprocessing="scale").fit(data * np.float32(factor))
        assert_unit(model.components_)
        np.testing.assert_allclose(model.components_, expected.components_, atol=1e-3)


@pytest.mark.parametrize(
    "given", [np.ones((5, 15)), torch.ones(5, 17), shoal.open_source(np.ones((5, 1)))], ids=type
)
def test_another_number_of_features_is_refused(fitted: DictionaryAutoencoder, given: Any) -> None:
    uses = (fitted.transform, fitted.iter_transform, fitted.score, fitted.diagnose)
    for use in (*uses, fitted.iter_coded):
        with pytest.raises(ValueError, match="16 features"):
            use(given)


def test_an_unknown_method_is_refused_at_the_call(
    world: SimpleNamespace, fitted: DictionaryAutoencoder
) -> None:
    for use in (fitted.transform, fitted.iter_transform, fitted.iter_coded):
        with pytest.raises(ArgumentError, match=r"^method: found 'lasso'; needed one of"):
            use(world.data, "lasso")
    with pytest.raises(ArgumentError, match=r"^method"):
        fitted.score(world.data, method="lasso")


def test_a_full_batch_of_a_stream_is_refused() -> None:
    model = autoencoder(recipe="nguyen2019-sparse-threshold")
    with pytest.raises(ArgumentError, match=r"^recipe: found a full batch on a stream"):
        model.iter_fit(iter([np.ones((100, 16))]))


def test_whitening_needs_data_that_varies() -> None:
    with pytest.raises(ArgumentError, match="n_samples = 1"):
        DictionaryAutoencoder(preprocessing="whiten").iter_fit(np.ones((1, 3)))
    with pytest.raises(ArgumentError, match="rows that are all the same"):
        DictionaryAutoencoder(preprocessing="whiten").fit(np.ones((9, 3)))


# ------------------------------------------------------------------ odd but usable


RNG = np.random.default_rng(0)
ODD: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "k > n": (RNG.standard_normal((200, 6)), {"n_components": 12, "n_nonzero_coefs": 9}),
    "k = m": (RNG.standard_normal((200, 6)), {"n_components": 4, "n_nonzero_coefs": 4}),
    "zeros": (np.zeros((200, 6)), {}),
    "constant": (np.full((200, 6), 7.0), {}),
    "constant column": (np.c_[RNG.standard_normal((200, 5)), np.ones(200)], {}),
    "duplicated rows": (np.repeat(RNG.standard_normal((2, 6)), 100, axis=0), {"n_components": 8}),
    "one feature": (RNG.standard_normal((200, 1)), {"n_components": 3, "n_nonzero_coefs": 1}),
    "as many rows as atoms": (RNG.standard_normal((10, 4)), {"n_components": 10}),
    "one row": (RNG.standard_normal((1, 4)), {"n_components": 1, "n_nonzero_coefs": 1}),
    "wide": (RNG.standard_normal((20, 300)), {"n_components": 10}),
    "an outlier": (np.r_[RNG.standard_normal((200, 6)), np.full((1, 6), 1e20)], {}),
    "one-hot": (np.eye(6)[RNG.integers(0, 6, 200)], {"n_components": 12}),
    "far from 0": (RNG.standard_normal((200, 6)) + 1e6, {}),
}


@pytest.mark.filterwarnings("ignore:n_components=:UserWarning")  # some have use for few atoms
@pytest.mark.filterwarnings("ignore:100% of the square is in:UserWarning")  # of one row
@pytest.mark.parametrize("model", ["sparse", "nonnegative", "mixture"])
@pytest.mark.parametrize("preprocessing", ["none", "scale"])
@pytest.mark.parametrize("case", ODD)
def test_odd_data_gives_finite_unit_atoms(case: str, preprocessing: str, model: str) -> None:
    data, changes = ODD[case]
    changes = {"n_components": 6, "n_nonzero_coefs": 2} | changes
    if model == "mixture":
        changes["n_nonzero_coefs"] = 1
    m, k = changes["n_components"], changes["n_nonzero_coefs"]
    recipe = hurried(model, m, k, len(data))
    fit = DictionaryAutoencoder(
        **changes, model=model, recipe=recipe, preprocessing=preprocessing, random_state=0
    ).fit(data)
    assert_unit(fit.components_)
    for method in METHODS:
        codes = fit.transform(data, method)
        assert np.isfinite(codes).all()
        assert np.isfinite(fit.inverse_transform(codes)).all()
        assert -math.inf < fit.score(data, method=method) <= 1


def test_an_open_zarr_array_is_read_by_chunks_and_never_whole(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    rows = np.random.default_rng(0).standard_normal((600, 8))
    stored = zarr.create_array(tmp_path / "rows.zarr", shape=(600, 8), chunks=(100, 8), dtype="f8")
    stored[:] = rows
    assert is_source(stored)
    model = DictionaryAutoencoder(8, 2, random_state=0).fit(stored)
    np.testing.assert_array_equal(model.transform(stored), model.transform(rows))


def test_matching_pursuit_takes_as_many_atoms_as_the_recipes_encoder() -> None:
    rows = np.random.default_rng(0).standard_normal((300, 8))
    recipe = recipe_named("default", "sparse", 8, 3, 300)
    model = DictionaryAutoencoder(8, 1, recipe=recipe, random_state=0).fit(rows)
    assert (model.transform(rows, "encoder") != 0).sum(axis=1).max() == 3
    assert (model.transform(rows, "omp") != 0).sum(axis=1).max() == 3


def test_codes_up_to_an_error_take_as_many_atoms_as_each_row_needs():
    data = np.random.default_rng(0).standard_normal((300, 12))
    model = DictionaryAutoencoder(24, 2, random_state=0).fit(data)
    codes = model.transform(data, method="omp", tol=0.1)
    left = np.square(data - codes @ model.components_).sum(axis=1)
    assert (left <= (0.1 + 1e-9) * np.square(data).sum(axis=1)).all()
    assert len(set((codes != 0).sum(axis=1))) > 1
    blocks = list(model.iter_transform(data, "omp", batch_size=100, tol=0.1))
    np.testing.assert_array_equal(np.concatenate(blocks) != 0, codes != 0)


@pytest.mark.parametrize(
    ("method", "tol", "said"),
    [("pursuit", 0.1, "method='omp'"), ("encoder", 0.1, "method='omp'"), ("omp", 0, "> 0"),
     ("omp", 1.5, "<= 1"), ("omp", float("nan"), "finite"), ("omp", "few", "number")],
)  # fmt: skip
def test_an_error_that_can_not_be_reached_for_is_refused(method, tol, said):
    data = np.random.default_rng(0).standard_normal((60, 6))
    model = DictionaryAutoencoder(8, 2, random_state=0).fit(data)
    with pytest.raises(ArgumentError, match=r"tol") as error:
        model.transform(data, method, tol=tol)
    assert said in str(error.value)
