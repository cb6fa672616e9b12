"""Processes that share a fit: the same result in all of them, and as by one."""

import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import shoal
from shoal.generative import SparseCoding, random_dictionary
from shoal.network.activations import JumpReLU
from shoal.training import ranks as module
from shoal.training.ranks import BLOCKS, Ranks, current, together
from shoal.vocabulary import ArgumentError

HERE = Path(__file__).parent
SOURCE = Path(shoal.__file__).parents[1]
SIZES = (2, 4) if os.environ.get("SHOAL_RANKS") else (2,)


def environment(**more: str) -> dict[str, str]:
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    path = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, **single, "PYTHONPATH": path, **more}


def module_of(name: str):
    """A module beside this one, which processes of their own run as a script."""
    sys.path.insert(0, str(HERE))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(HERE))


def found_by(name: str, size: int, *words: str):
    """What each of `size` processes of that script has found; the last one kills itself."""
    script = [sys.executable, str(HERE / f"{name}.py")]
    running = [
        subprocess.Popen([*script, str(rank), str(size), *words], env=environment())
        for rank in range(size)
    ]
    try:
        codes = [each.wait(timeout=200) for each in running]
    finally:
        for each in running:
            each.kill()
    assert codes == [0] * (size - 1) + [-signal.SIGKILL]
    folder = Path(words[-1])
    return [json.loads((folder / f"found{rank}.json").read_text()) for rank in range(size)]


@pytest.fixture(scope="module")
def at_work():
    return module_of("at_work")


@pytest.fixture(scope="module", params=SIZES)
def found(request, tmp_path_factory):
    """What each of several processes has found."""
    return found_by("at_work", request.param, str(tmp_path_factory.mktemp("ranks")))


def test_reproducible_fits_have_the_bits_of_one_process(found, at_work):
    torch.set_num_threads(1)
    with together(reproducible=True):
        alone = {name: at_work.digest(at_work.fitted(name)) for name in at_work.SETTINGS}
    for each in found:
        assert each["same"] == alone


def test_others_are_the_same_up_to_the_order_of_sums(found, at_work):
    for name in ("default", "spare atoms"):
        alone = at_work.fitted(name).components_
        for each in found:
            assert each["atoms"][name] == found[0]["atoms"][name]
            np.testing.assert_allclose(each["atoms"][name], alone, atol=1e-5)


def test_all_processes_refuse_what_is_other_data_in_one(found):
    for each in found:
        assert each["refused"].startswith("processes 1")
        assert "have other data, arguments or versions than process 0" in each["refused"]


def test_without_a_seed_the_first_process_draws_one_for_all(found):
    assert len({each["unseeded"] for each in found}) == 1


def test_a_lost_process_is_said_and_the_others_can_go_on_to_the_same_bits(found):
    said, steps, digest = found[0]["after a loss"]
    assert "waited in vain for another one, which has ended or does not answer (" in said
    assert 10 <= steps < 20
    assert digest == found[0]["same"]["default"]


def test_blocks_are_all_rows_once_for_any_number_of_processes():
    for reproducible, sizes in ((False, (1, 2, 3, 5)), (True, (1, 2, 4, 8))):
        for size in sizes:
            for count in (0, 1, 7, 603):
                every = [Ranks(rank, size, reproducible).bounds(count) for rank in range(size)]
                ends = [pair for each in every for pair in each]
                assert [low for low, _ in ends] == [0, *(high for _, high in ends[:-1])]
                assert ends[-1][1] == count
                if reproducible:
                    assert ends == Ranks(0, 1, True).bounds(count)
                    assert len(ends) == BLOCKS


def test_a_number_of_processes_that_cuts_a_block_is_refused():
    with pytest.raises(ArgumentError, match=r"3 processes; needed 1, 2, 4, 8 of them"):
        Ranks(0, 3, True)


def test_a_fit_is_its_own_outside_of_the_block_and_within_apart():
    assert current().alone
    with together(reproducible=True):
        assert not current().alone
        with module.apart():
            assert current().alone
    assert current().alone


def test_a_shared_batch_says_what_a_whole_one_says():
    rows = torch.randn(100, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    atoms = torch.from_numpy(random_dictionary(8, 6, random_state=0))
    parameters = shoal.vocabulary.Parameters(atoms, torch.zeros(8, dtype=torch.float64))
    batches = [ranks.batch(rows, 100) for ranks in (Ranks(), Ranks(reproducible=True))]
    encoder = shoal.network.TopK(2)
    sums = [batch.evaluate(encoder, None, parameters, None) for batch in batches]
    for name in ("dictionary", "bias", "losses", "counts", "energy"):
        one, other = (getattr(each, name) for each in sums)
        torch.testing.assert_close(one, other)
    one, other = batches
    torch.testing.assert_close(one.variance(), other.variance())
    assert torch.equal(one.squares(), other.squares())
    index = torch.tensor([99, 0, 50])
    assert torch.equal(one[index], other[index])
    assert len(one) == len(other) == 100
    assert one.width == other.width == 6


def test_what_thresholds_learn_from_is_shared_as_well():
    rows = torch.randn(100, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    atoms = torch.from_numpy(random_dictionary(80, 6, random_state=0))
    level = torch.full((80,), 1.5, dtype=torch.float64)
    zeros = torch.zeros_like(level)
    parameters = shoal.vocabulary.Parameters(atoms, zeros, 0.9 * atoms, level, atoms[0])
    batches = [ranks.batch(rows, 100) for ranks in (Ranks(), Ranks(reproducible=True))]
    encoder = JumpReLU(window=0.5)
    sums = [batch.evaluate(encoder, None, parameters, None) for batch in batches]
    for name in ("dictionary", "encoder", "threshold", "offset", "near"):
        one, other = (getattr(each, name) for each in sums)
        assert bool(one.any())
        torch.testing.assert_close(one, other)


def test_parameters_that_have_come_apart_are_noticed(monkeypatch):
    compared = []
    monkeypatch.setattr(Ranks, "agree", lambda ranks, what, text: compared.append((what, text)))
    ranks, atoms = Ranks(0, 2), torch.eye(3)
    parameters = shoal.vocabulary.Parameters(atoms, torch.zeros(3))
    for _ in range(2 * 256):
        ranks.compare(parameters)
    (one, other) = compared
    assert one == other
    atoms[0, 0] += torch.finfo(torch.float32).eps
    assert module.digest_of(parameters) != one[1]


# --------------------------------------------------------------------------- the command


KILLER = """
import os, signal
from shoal.training.checkpoints import Keeper

def step(keeper, moving, step=Keeper.step):
    step(keeper, moving)
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first and os.environ["RANK"] == "1" and keeper.steps == 17:
        os.kill(os.getpid(), signal.SIGKILL)

Keeper.step = step
"""


@pytest.mark.skipif(not os.environ.get("SHOAL_RANKS"), reason="SHOAL_RANKS is not set")
def test_after_a_lost_process_torchrun_goes_on_to_the_same_bytes(tmp_path):
    world = SparseCoding(random_dictionary(20, 12, random_state=0), 2, noise=0.05)
    np.save(tmp_path / "x.npy", world.sample(603, random_state=1).data)
    (tmp_path / "killer.py").write_text(KILLER)
    fit = ["fit", "x.npy", "-m", "20", "-k", "2", "--reproducible", "-q"]
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words += ["--max-restarts", "1", "--monitor-interval", "0.1", "-m", "shoal"]
    words += ["--plugin", "killer", *fit, "-o", "shared", "--checkpoint-every", "5", "--resume"]
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=environment(), capture_output=True, timeout=120
    )
    said = done.stderr.decode()
    assert done.returncode == 0, said
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(errors) <= 1, said  # none where the other process is ended first
    assert all("waited in vain for another one" in line for line in errors)
    assert not (tmp_path / "shared.checkpoints").exists()
    alone = subprocess.run(
        [sys.executable, "-m", "shoal", *fit, "-o", "alone"], cwd=tmp_path, env=environment()
    )
    assert alone.returncode == 0
    one, other = (
        (tmp_path / name / "dictionary.safetensors").read_bytes() for name in ("shared", "alone")
    )
    assert one == other
