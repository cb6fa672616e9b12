"""A forked process answers, with the same bits, whatever its parent did before.

Each script runs in a process of its own and is ended after a time in which it must have answered.
None sets the number of threads in a child: a child that has to is one that hangs elsewhere.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import shoal

# Each starts a process of its own, which takes seconds: the rarer ones run with SHOAL_ATTACKS=1.
rare = pytest.mark.skipif(not os.environ.get("SHOAL_ATTACKS"), reason="SHOAL_ATTACKS is not set")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

START = """
import multiprocessing, os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # threads and forks
import numpy as np
import torch
import shoal
from dataclasses import replace

X = np.random.default_rng(0).normal(size=(600, 16)).astype(np.float32)
METHODS = ("encoder", "least_squares", "pursuit", "omp", "iht")

def new():
    "The default recipe, which does not wait for rows without structure to settle."
    recipe = shoal.training.recipe_named("default", "sparse", 24, 2, len(X))
    recipe = replace(recipe, refinement=replace(recipe.refinement, n_steps=50))
    return shoal.DictionaryAutoencoder(24, 2, recipe=recipe, random_state=0)

def everything(model=None):
    "All that a process is asked for: fit, codes of every kind, a score, another batch."
    fitted = new().fit(X)
    codes = [fitted.transform(X[:300], method=each) for each in METHODS]
    if model is not None:
        codes += [model.transform(X[:300], method=each) for each in METHODS]
    score = fitted.score(X)
    dense = shoal.RegularizedAutoencoder(8, "cae", 0.5, n_epochs=1, random_state=0).fit(X)
    after = fitted.partial_fit(X).components_
    found = [fitted.components_, *codes, score, after, dense.components_, dense.transform(X)]
    return [np.asarray(each).tobytes() for each in found]

def children(work, count=2):
    "What `work` gives in forked processes, by pipes and nothing else."
    found = []
    for _ in range(count):
        reader, writer = multiprocessing.Pipe(False)
        if os.fork() == 0:
            try:
                writer.send(work())
            finally:
                os._exit(0)
        writer.close()
        found.append(reader.recv())
        os.wait()
    return found
"""


def ends(script, *, seconds=150, **environment):
    """What a fresh Python prints of `script`, which has so long to end."""
    source = str(Path(shoal.__file__).parents[1])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", script],
        # Threads that wait without turning in circles: others may want the cores.
        env={**os.environ, "PYTHONPATH": path, "OMP_WAIT_POLICY": "PASSIVE", **environment},
        capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


BY_HAND = """
torch.set_num_threads({threads})
model = new().fit(X)
before = torch.get_num_threads()
here = everything(model)

def grandchild():
    (found,) = children(lambda: everything(model), 1)
    return found

for found in [*children(lambda: everything(model), 1), *children(grandchild, 1)]:
    different = [i for i, (one, two) in enumerate(zip(found, here)) if one != two]
    assert len(found) == len(here) and different == [], different
assert torch.get_num_threads() == before == {threads}
assert everything(model) == here, "the parent is as it was"
with multiprocessing.get_context("fork").Pool(2) as pool:
    codes = np.concatenate(pool.map(model.transform, [X[:100], X[100:]]))
assert np.array_equal(codes, model.transform(X))
"""


@pytest.mark.parametrize("threads", [2, pytest.param(1, marks=rare)])
def test_children_and_their_children_do_all_that_their_parent_does(threads):
    script = START + BY_HAND.format(threads=threads)
    ends(script, NUMBA_NUM_THREADS="2", OMP_NUM_THREADS="2")


POOLS = """
from concurrent.futures import ProcessPoolExecutor
import joblib
from sklearn.model_selection import GridSearchCV

def codes(rows):
    return model.transform(rows, method="pursuit")

torch.set_num_threads(2)
model = new().fit(X)
expected = [codes(X[:300]), codes(X[300:])]
halves = [X[:300], X[300:]]
fork = multiprocessing.get_context("fork")
with fork.Pool(2) as pool:
    assert all(map(np.array_equal, pool.map(codes, halves), expected)), "Pool"
    assert all(map(np.array_equal, pool.map(model.transform, halves), map(model.transform, halves)))
with ProcessPoolExecutor(2, mp_context=fork) as pool:
    assert all(map(np.array_equal, pool.map(codes, halves), expected)), "executor"

def search(backend):
    with joblib.parallel_backend(backend):
        estimator = shoal.DictionaryAutoencoder(24, 2, random_state=0)
        grid = GridSearchCV(estimator, {"n_nonzero_coefs": [1, 2]}, cv=2, n_jobs=2)
        return grid.fit(X).cv_results_["mean_test_score"]

scores = [search(each) for each in ("threading", "multiprocessing")]
assert np.array_equal(*scores), scores
"""


@rare
def test_pools_that_fork():
    ends(START + POOLS, OMP_NUM_THREADS="2")


MEANWHILE = """
torch.set_num_threads(2)
found, going = [], True

def others():
    while going:
        found.append(new().fit(X).components_.tobytes())

thread = threading.Thread(target=others)
thread.start()  # the first fit imports what there is to import
for delay in {delays}:
    time.sleep(delay)
    found += children(lambda: new().fit(X).components_.tobytes(), 1)
going = False
thread.join()
assert len(found) > 3 and set(found) == {{new().fit(X).components_.tobytes()}}
"""


@pytest.mark.parametrize(
    "delays", [(0.0, 0.03, 0.1), pytest.param((0.2, 0.3, 0.5, 0.01, 0.02), marks=rare)]
)
def test_a_fork_while_another_thread_imports_and_fits(delays):
    ends(START + MEANWHILE.format(delays=delays), OMP_NUM_THREADS="2", NUMBA_NUM_THREADS="2")


BEFORE = """
import multiprocessing, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
{first}
import numpy as np
def work(_):
    import numpy as np
    import shoal, torch
    X = np.random.default_rng(0).normal(size=(3000, 16))
    model = shoal.DictionaryAutoencoder(24, 2, random_state=0).fit(X)
    return model.transform(X, method="least_squares").tobytes(), torch.get_num_threads()
if {use}:
    import torch
    torch.set_num_threads(2)
    (torch.randn(2000, 500) @ torch.randn(500, 2000)).exp().sum()
    torch.linalg.solve(torch.randn(4000, 5, 5) + 9 * torch.eye(5), torch.randn(4000, 5, 1))
with multiprocessing.get_context("fork").Pool(1) as pool:
    (found, threads), = pool.map(work, [0])
assert found == work(0)[0]
assert threads == (1 if {use} else 2), threads
"""


@pytest.mark.parametrize(
    ("first", "use"),
    [
        pytest.param("import shoal", True, id="PyTorch was used"),
        pytest.param("", True, id="PyTorch was used before shoal was there", marks=rare),
        pytest.param("import shoal", False, id="nothing was used", marks=rare),
    ],
)
def test_a_fork_before_any_fit(first, use):
    ends(BEFORE.format(first=first, use=use), OMP_NUM_THREADS="2", NUMBA_NUM_THREADS="2")
