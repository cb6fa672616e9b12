"""Processes that hold a shard of the atoms each: the codes and atoms of one that holds them all."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from shoal.cli import app
from shoal.network import kernels
from shoal.network.activations import TopK
from shoal.network.codes import sparse_codes
from shoal.network.kernels import reference
from shoal.training.ranks import check_shards, together
from shoal.vocabulary import ArgumentError, Parameters
from training.test_ranks import SIZES, found_by, module_of

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def at_work():
    return module_of("shards_at_work")


@pytest.fixture(scope="module", params=SIZES)
def found(request, tmp_path_factory):
    """What each of several processes has found, every two of which share the atoms."""
    return found_by("shards_at_work", request.param, "2", str(tmp_path_factory.mktemp("shards")))


@pytest.fixture(scope="module")
def alone(at_work):
    torch.set_num_threads(1)
    return {name: at_work.fitted(name) for name in at_work.SETTINGS}


def test_atoms_are_those_of_one_process_up_to_the_order_of_sums(found, alone, at_work):
    for name, (model, replaced, shapes) in alone.items():
        m = max(shapes)
        for rank, each in enumerate(found):
            atoms, digest, also_replaced, own = each[name]
            assert digest == found[0][name][1]
            np.testing.assert_allclose(atoms, model.components_, atol=1e-5)
            assert also_replaced == replaced
            first, last = m * (rank % 2) // 2, m * (rank % 2 + 1) // 2
            # All atoms only where the descent is over, and the last step has gathered them.
            assert own in ([last - first, m], [last - first])
    for name in (at_work.LEFT, "tied"):
        assert alone[name][1] > 0  # atoms were replaced while they were shared


def test_codes_are_the_k_largest_of_all_with_ties_to_the_first(found):
    for each in found:
        assert each["ties"] == [True, True]


def test_a_fit_that_is_left_goes_on_to_the_same_bits(found):
    steps, same = found[0]["resumed"]
    assert 50 < steps <= 61
    assert same


def test_what_cannot_be_shared_is_refused_before_any_work(found):
    for each in found:
        assert each["too few"] == "shard_atoms: found 2 for 1 atoms; needed 1 at most"
        assert each["once"].startswith("shard_atoms: found 2 with ")
        assert "data that can be read again" in each["once"]
        assert each["recipe"].startswith(
            "shard_atoms: found 2 with a recipe of JumpReLU; needed 1, or"
        )
        assert each["penalty"] == "shard_atoms: found 2 with a penalty; needed 1"


def test_a_lost_process_is_said_by_the_others(found):
    for each in found[:-1]:
        assert "waited in vain for another one" in each["after a loss"]


@pytest.mark.parametrize(
    ("shards", "size", "said"),
    [
        (3, 4, "3 with 4 processes; needed 1, 2, 4"),
        (4, 2, "4 with 2 processes; needed 1, 2"),
        (2, 1, "2 with 1 process; needed 1, or a multiple of 2 processes by torchrun"),
        (0, 2, "0; needed an integer >= 1"),
    ],
)
def test_a_number_that_processes_cannot_be_divided_by_is_refused(shards, size, said):
    with pytest.raises(ArgumentError) as caught:
        check_shards(shards, size)
    assert str(caught.value).endswith(said)


def test_one_process_holds_all_atoms_and_reproducible_sums_are_not_for_shards():
    with together(shard_atoms=1) as ranks:
        assert ranks.alone
    with pytest.raises(ArgumentError, match="2 with 1 process"), together(shard_atoms=2):
        pass
    with pytest.raises(ArgumentError, match="2 with reproducible sums; needed 1"):
        check_shards(2, 2, reproducible=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shard-atoms", "2"], "2 with 1 process"),
        (["--shard-atoms", "0"], "shard_atoms: found 0"),
        (["--shard-atoms", "-3"], "shard_atoms: found -3"),
        (["--shard-atoms", "2", "-m", "1"], "2 for 1 atoms; needed 1 at most"),
        (["--shard-atoms", "2", "--penalty", "dae"], "2 with --penalty; needed 1"),
    ],
)
def test_the_command_refuses_in_one_line_and_leaves_nothing(words, said, tmp_path):
    np.save(tmp_path / "x.npy", np.eye(8))
    run = tmp_path / "run"
    result = CliRunner().invoke(app, ["fit", str(tmp_path / "x.npy"), "-o", str(run), *words])
    assert result.exit_code != 0
    assert said in str(result.exception) + result.output
    assert not run.exists()


@pytest.mark.parametrize("own", [False, True], ids=["tied", "untied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_step_of_a_part_is_the_part_of_the_step(own, dtype):
    draw = torch.Generator().manual_seed(0)
    atoms, encoder, rows = (
        torch.randn(count, 40, generator=draw, dtype=dtype) for count in (90, 90, 70)
    )
    bias, offset = torch.randn(90, generator=draw, dtype=dtype), atoms[0] / 3
    parameters = Parameters(atoms, bias)
    if own:
        parameters = Parameters(atoms, bias, encoder, None, offset)
    whole = reference.step(parameters, rows, TopK(5))
    codes = reference.encode(parameters, rows, TopK(5))
    target = rows - codes[:, 30:] @ atoms[30:] - (offset if own else 0.0)
    part = parameters.units(torch.arange(30))
    for kernel in (reference, kernels.choose(rows)):
        found = kernel.targeted_step(part, rows, target, sparse_codes(codes[:, :30]))
        names = ["dictionary", "bias", "counts", "energy", *(["encoder"] if own else [])]
        for name in names:
            expected = getattr(whole, name)[:30]
            torch.testing.assert_close(getattr(found, name), expected, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(found.losses, whole.losses)
        if own:
            torch.testing.assert_close(found.offset, whole.offset, atol=1e-3, rtol=1e-4)
