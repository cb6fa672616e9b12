"""A training that is stopped after any step goes on from its state in a file with the same bits."""

import json
import pickle
import subprocess
import sys
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import safetensors.torch
import torch

from shoal.data import Preprocessing, open_source
from shoal.generative import MixtureOfGaussians, NonnegativeSparseCoding, SparseCoding
from shoal.generative import random_dictionary as random_atoms
from shoal.network.activations import ACTIVATIONS
from shoal.network.penalties import PENALTIES, penalty_named
from shoal.training import (
    RECIPES,
    Adam,
    Halving,
    MomentumSettings,
    Nearness,
    NormalizedStep,
    Recipe,
    Revival,
    arpit2016,
    begin,
    descend,
    normalized_start,
    prepare,
    recipe_named,
    run,
)
from shoal.training.checkpoints import packed, unpacked
from shoal.training.schedules import Constant

M, N, K = 24, 16, 2


def planted(model="sparse", n_samples=1500, dtype=np.float64, noise=0.05):
    atoms = random_atoms(M, N, random_state=0)
    if model == "mixture":
        world = MixtureOfGaussians(atoms, noise=noise)
    else:
        kind = SparseCoding if model == "sparse" else NonnegativeSparseCoding
        world = kind(atoms, K, noise=noise)
    return world.sample(n_samples, random_state=1).data.astype(dtype)


def parts_of(state):
    return state.parameters.parts()


def same(one, other):
    return all(map(torch.equal, parts_of(one), parts_of(other)))


def through_a_file(state):
    plain, tensors = packed(state)
    data = safetensors.torch.save(tensors)
    plain = json.loads(json.dumps(plain, allow_nan=False))
    return unpacked(plain, safetensors.torch.load(data), torch.device("cpu"))


def assert_resumes(flow, at):
    """`flow` gives (state, sums) from None or from a state; it's stopped at the steps `at`."""
    states, kept = [], {}
    for number, (state, _) in enumerate(flow(None)):
        states.append([part.clone() for part in parts_of(state)])
        if number in at:
            kept[number] = through_a_file(state)
    assert kept, len(states)
    for number, state in kept.items():
        rest = list(states[number + 1 :])
        found = 0
        for again, _ in flow(state):
            assert all(map(torch.equal, parts_of(again), rest[found])), (number, found)
            found += 1
        assert found == len(rest)


def whole_fit(model, recipe="default", k=K, data=None, source=None, seed=0):
    """A fit from a fresh source, as it would be in another process."""
    opened = source or (lambda: open_source(planted(model) if data is None else data))

    def flow(state):
        given = opened()
        count = given.n_samples
        recipes = partial(_recipe, recipe, model, count)
        rng = np.random.default_rng(seed)
        problem, first = prepare(given, "data", M, k, recipes, model, rng)
        return run(problem, first if state is None else state)

    return flow


def _recipe(recipe, model, n_samples, k):
    return recipe if isinstance(recipe, Recipe) else recipe_named(recipe, model, M, k, n_samples)


AUTOENCODERS = ("topk", "batchtopk", "jumprelu", "matryoshka")


def model_of(name):
    if name == "bias-adaptation":
        return "nonnegative"
    return next((m for m in ("nonnegative", "mixture", "sparse") if m in name), "sparse")


@pytest.mark.filterwarnings("ignore::UserWarning")
# Those of sparse autoencoders have tests of their own.
@pytest.mark.parametrize("name", [name for name in RECIPES if name not in AUTOENCODERS])
def test_every_recipe(name):
    model = model_of(name)
    data = planted(model, 600)
    at = (0, 3, 17) if name != "bias-adaptation" else (0, 401)
    assert_resumes(whole_fit(model, name, 1 if model == "mixture" else K, data), at)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("model", ["sparse", "nonnegative"])
def test_search_descent_refinement_and_polish(model, dtype):
    flow = whole_fit(model, k=None, data=planted(model, dtype=dtype))
    seen = [
        "search" if state.k is None else "polish" if state.polished else str(state.stage)
        for state, _ in flow(None)
    ]
    ends = [at for at, (a, b) in enumerate(pairwise(seen)) if a != b]
    assert {"search", "polish"} < set(seen)
    # In the middle of each, at their ends and beginnings, and at the last step of all.
    at = {5, *ends, *(end + 1 for end in ends), *(end - 2 for end in ends), len(seen) - 1}
    assert_resumes(flow, at)


def test_on_a_memory_map(tmp_path):
    np.save(tmp_path / "data.npy", planted())
    flow = whole_fit("sparse", source=lambda: open_source(tmp_path / "data.npy"))
    assert_resumes(flow, (0, 7, 30))


def test_on_a_stream_that_can_be_read_again():
    parts = np.array_split(planted(), 7)
    flow = whole_fit("sparse", source=lambda: open_source(lambda: iter(parts)))
    assert_resumes(flow, (0, 7, 30))


def test_on_preprocessed_data():
    fitted = Preprocessing("whiten").fit(open_source(planted()))
    flow = whole_fit("sparse", source=lambda: fitted.through(open_source(planted())))
    assert_resumes(flow, (2, 11))


def descent(recipe, data, start):
    def flow(state):
        plan, source = recipe.plan(), open_source(data)
        begun = begin(start, plan, np.random.default_rng(3))
        return descend(begun if state is None else state, source, plan)

    return flow


@pytest.mark.parametrize("activation", ["topk", "threshold", "relu"])
def test_full_batches_whose_kernel_remembers(activation):
    from shoal.network import HardThreshold, ReLU, TopK

    encoder = {"topk": TopK(K), "threshold": HardThreshold(0.6), "relu": ReLU()}[activation]
    wide = random_atoms(96, N, random_state=0)
    data = SparseCoding(wide, K).sample(2000, random_state=1).data
    start = normalized_start(96, N, np.random.default_rng(0)).map(torch.Tensor.double)
    recipe = Recipe(
        encoder,
        NormalizedStep(Constant(0.05)),
        25,
        bias=Halving(-0.8, floor=-0.3) if activation == "relu" else None,
        constraint=Nearness(0.5),
        revival=Revival(7),
    )
    assert_resumes(descent(recipe, data, start), (0, 6, 12, 23))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_every_penalty(penalty, dtype):
    data = planted("sparse", 120, dtype)
    settings = MomentumSettings(batch_size=25, n_epochs=3)
    activation = ACTIVATIONS["sigmoid"]()
    recipe = arpit2016(activation, penalty_named(penalty, 0.2), len(data), settings)
    start = normalized_start(M, N, np.random.default_rng(0))
    start = start.map(lambda part: part.to(torch.from_numpy(data).dtype))
    assert_resumes(descent(recipe, data, start), (0, 2, 4, 9))


def test_adam():
    from shoal.network import TopK

    start = normalized_start(M, N, np.random.default_rng(0)).map(torch.Tensor.double)
    recipe = Recipe(TopK(K), Adam(Constant(0.01), tangent=True), 30, 256)
    assert_resumes(descent(recipe, planted(), start), (0, 5, 28))


def test_nothing_is_left_to_do_after_the_last_step():
    flow = whole_fit("sparse")
    *_, (last, _) = flow(None)
    assert last.finished
    assert list(flow(last)) == []


PROGRAM = """
import pickle, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from test_resume import whole_fit
state = pickle.load(open(sys.argv[2], "rb"))
*_, (last, _) = whole_fit("sparse")(state)
pickle.dump(last, open(sys.argv[3], "wb"))
"""


def test_in_another_process(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number, (state, _) in enumerate(whole_fit("sparse")(None)):
            if number == 9:
                (tmp_path / "state").write_bytes(pickle.dumps(state))
    finally:
        torch.set_num_threads(before)
    from pathlib import Path

    words = [str(Path(__file__).parent), str(tmp_path / "state"), str(tmp_path / "last")]
    subprocess.run([sys.executable, "-c", PROGRAM, *words], check=True)
    assert same(pickle.loads((tmp_path / "last").read_bytes()), state)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_fit_that_took_a_second_look_at_its_rows():
    data = planted(n_samples=1500, noise=0.0)
    rng = np.random.default_rng(0)
    on = rng.random(len(data)) < 0.15
    noise = rng.standard_normal((int(on.sum()), N))
    data[on] = 6.0 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    flow = whole_fit("sparse", data=data)
    looked = [number for number, (state, _) in enumerate(flow(None)) if state.looked is not None]
    assert looked, "no second look was taken"
    assert_resumes(flow, (looked[0] - 1, looked[1]))
