"""A fit saves what moves in it; what is left of a killed one is gone on from, or refused."""

import errno
import hashlib
import json
import os
import shutil
import signal
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

import shoal
import shoal.files
from attacks import faults
from attacks.resume_kills import killed
from shoal import parts, signals
from shoal.data import fingerprints
from shoal.generative import SparseCoding, random_dictionary
from shoal.network import TopK
from shoal.training import FixedStep, Recipe, checkpoints
from shoal.training.checkpoints import Every, packed, unpacked
from shoal.training.schedules import Constant
from shoal.vocabulary import ArgumentError, Parameters, RunError, WriteError

CPU = torch.device("cpu")


def rows(seed=1, n_samples=600):
    world = SparseCoding(random_dictionary(20, 12, random_state=0), 2, noise=0.05)
    return world.sample(n_samples, random_state=seed).data


X = rows()


def dictionary(**named):
    usual = {"n_components": 20, "n_nonzero_coefs": 2, "random_state": 0}
    return shoal.DictionaryAutoencoder(**(usual | named))


def regularized(**named):
    usual = {"n_components": 20, "n_epochs": 4, "random_state": 0}
    return shoal.RegularizedAutoencoder(**(usual | named))


MODELS = {"dictionary": dictionary, "regularized": regularized}


def left(model, folder, after=2, data=X, every=3):
    """What a fit leaves that is dropped after some of what it yields."""
    steps = model.iter_fit(data, checkpoint=folder, checkpoint_every=every)
    for _ in range(after):
        next(steps)
    steps.close()
    return folder


def plain(history):
    return [{name: value for name, value in each.items() if name != "seconds"} for each in history]


def assert_same(one, other):
    for name in ("components_", "bias_"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)
    assert plain(one.history_) == plain(other.history_)
    assert one.n_steps_ == other.n_steps_


@pytest.fixture(scope="module")
def whole():
    return {name: make().fit(X) for name, make in MODELS.items()}


# --- saved and gone on with ------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_that_was_left_goes_on_to_the_same_bits_and_history(name, whole, tmp_path):
    left(MODELS[name](), tmp_path / "saved")
    model = MODELS[name]()
    seen = list(model.iter_fit(X, checkpoint=tmp_path / "saved"))
    assert_same(model, whole[name])
    assert len(seen) == len(list(MODELS[name]().iter_fit(X))) - 2
    # And once it is done, nothing is done again.
    again = MODELS[name]()
    assert list(again.iter_fit(X, checkpoint=tmp_path / "saved")) == []
    assert_same(again, whole[name])


@pytest.mark.parametrize("name", MODELS)
def test_the_last_two_are_kept(name, tmp_path):
    left(MODELS[name](), tmp_path / "saved", after=3, every=1)
    first, second = sorted(os.listdir(tmp_path / "saved"))
    assert int(second) == int(first) + 1
    for each in (first, second):
        assert sorted(os.listdir(tmp_path / "saved" / each)) == [
            "state.json",
            "state.safetensors",
        ]


def test_saving_changes_nothing(whole, tmp_path):
    for name, make in MODELS.items():
        assert_same(make().fit(X, checkpoint=tmp_path / name, checkpoint_every=1), whole[name])


def test_an_epoch_may_be_left_in_its_middle(whole, tmp_path):
    def stop(keeper, moving, step=checkpoints.Keeper.step):
        step(keeper, moving)
        if keeper.steps == 17:  # 12 make an epoch
            raise ValueError("killed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints.Keeper, "step", stop)
        with pytest.raises(ValueError, match="killed"):
            regularized().fit(X, checkpoint=tmp_path / "saved", checkpoint_every=1)
    assert_same(regularized().fit(X, checkpoint=tmp_path / "saved"), whole["regularized"])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_fit_that_is_made_again_with_all_atoms_may_be_left_too(tmp_path):
    rng = np.random.default_rng(0)
    means = rng.normal(size=(12, 6))
    data = np.concatenate([mean + 0.05 * rng.normal(size=(50, 6)) for mean in means])

    def model():
        return dictionary(n_components=12, n_nonzero_coefs=1, model="nonnegative")

    whole = model()
    count = len(list(whole.iter_fit(data)))
    again = 0
    for after in (1, count // 2, count - 3):
        folder = left(model(), tmp_path / str(after), after, data)
        plain, _ = checkpoints._read(folder / max(os.listdir(folder)))
        again += plain["moving"]["map"]["state"]["fields"]["first"] is not None
        assert_same(model().fit(data, checkpoint=folder), whole)
    assert again, count


def test_a_seed_that_was_drawn_is_gone_on_with(tmp_path):
    left(dictionary(random_state=None), tmp_path / "saved")
    shutil.copytree(tmp_path / "saved", tmp_path / "copy")
    one = dictionary(random_state=None).fit(X, checkpoint=tmp_path / "saved")
    other = dictionary(random_state=None).fit(X, checkpoint=tmp_path / "copy")
    assert_same(one, other)


def test_what_was_warned_of_on_the_way_is_said_again(tmp_path):
    noise = np.random.default_rng(0).normal(size=(400, 8))
    with pytest.warns(UserWarning, match="no number of non-zeros") as first:
        whole = dictionary(n_nonzero_coefs="auto", n_components=12).fit(noise)
    steps = dictionary(n_nonzero_coefs="auto", n_components=12).iter_fit(
        noise, checkpoint=tmp_path / "saved"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while next(steps).phase == "search":
            pass
        steps.close()
    with pytest.warns(UserWarning, match="no number of non-zeros") as second:
        again = dictionary(n_nonzero_coefs="auto", n_components=12).fit(
            noise, checkpoint=tmp_path / "saved"
        )
    assert_same(again, whole)
    assert [str(each.message) for each in second] == [str(each.message) for each in first]


def test_a_stream_that_can_be_read_again_and_one_that_cannot(tmp_path):
    whole = dictionary().fit(lambda: iter(np.array_split(X, 7)))
    left(dictionary(), tmp_path / "saved", data=lambda: iter(np.array_split(X, 7)))
    again = dictionary().fit(lambda: iter(np.array_split(X, 7)), checkpoint=tmp_path / "saved")
    assert_same(again, whole)
    with pytest.raises(ArgumentError, match="data that can be read again"):
        dictionary().fit(iter(np.array_split(X, 7)), checkpoint=tmp_path / "other")


# Both estimators and every kind of data; `python -m tests.attacks.resume_kills 200` is heavier.
@pytest.mark.parametrize(
    ("setting", "source"),
    [
        ("dictionary, k searched", "memory map"),
        ("dictionary, k known", "stream"),
        ("regularized, dae", "file"),
        ("regularized, cae", "array"),
    ],
)
def test_killed_at_random_moments_it_ends_with_the_same_bytes(setting, source):
    counts = killed(3, setting, source, 5)
    assert counts["kills"] == 3
    assert counts["fits that ended"] == counts["with the same bytes"] > 0, counts


# --- damage ----------------------------------------------------------------------------------


def damage(kind, file):
    data = file.read_bytes()
    if kind == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "longer":
        file.write_bytes(data + b" ")
    elif kind == "flipped":
        middle = len(data) // 2
        file.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    else:
        file.unlink()
        if kind == "folder":
            file.mkdir()
        elif kind == "pipe":
            os.mkfifo(file)


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
@pytest.mark.parametrize("kind", ["cut", "empty", "longer", "flipped", "gone", "folder", "pipe"])
def test_a_damaged_one_is_noticed_and_the_one_before_it_used(kind, name, saved, whole, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "saved")
    before, last = sorted(os.listdir(folder))
    damage(kind, folder / last / name)
    steps = int(before)
    with pytest.warns(UserWarning, match=f"{last} is damaged .* after {steps} steps"):
        generator = regularized().iter_fit(X, checkpoint=folder)
    generator.close()
    if kind == "flipped":
        with pytest.warns(UserWarning, match="is damaged"):
            model = regularized().fit(X, checkpoint=folder)
        assert_same(model, whole["regularized"])
        # And the damaged one is not counted among the last two.
        for each in os.listdir(folder):
            checkpoints._read(folder / each)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("left") / "saved"
    left(regularized(), folder, after=1, every=4)
    assert len(os.listdir(folder)) == 2
    return folder


def test_where_none_is_whole_it_says_so(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "saved")
    for each in os.listdir(folder):
        damage("cut", folder / each / "state.safetensors")
    with pytest.raises(RunError, match=r"is damaged .* and none before it is whole; needed one"):
        regularized().fit(X, checkpoint=folder)


def forged(saved, folder, change):
    """A checkpoint with other content and right check sums."""
    folder.mkdir()
    name = max(os.listdir(saved))
    shutil.copytree(saved / name, folder / name)
    file = folder / name / "state.json"
    text = json.dumps(change(json.loads(file.read_text())) | {"checksum": "0" * 64}) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(digest.join(text.rsplit("0" * 64, 1)))
    return folder


def _in_state(field, value):
    def change(whole):
        whole["moving"]["map"]["state"]["fields"][field] = value
        return whole

    return change


def _moving(value):
    return lambda whole: whole | {"moving": value}


def _without(name):
    def change(whole):
        del whole["moving"]["map"][name]
        return whole

    return change


def _with_fewer_atoms(whole):
    parts = whole["moving"]["map"]["state"]["fields"]["parameters"]["fields"]
    parts["dictionary"] = parts["bias"]
    return whole


DEEP = json.loads("[" * 200 + "]" * 200)


@pytest.mark.parametrize(
    "change",
    [
        _in_state("place", {"record": "Popen", "fields": {"args": "true"}}),
        _in_state("place", 3),
        _in_state("number", {"float": "0x1p0"}),
        _in_state("k", {"number": "0x1p0", "dtype": "load", "on": "cpu"}),
        _in_state("settled", {"tensor": "t0", "stride": [2**40, 1], "on": "cpu"}),
        _in_state("settled", {"tensor": "none", "stride": None, "on": "cpu"}),
        _in_state("begun", {"tuple": [DEEP]}),
        _moving(None),
        _moving({"map": {}}),
        _moving({"map": {"state": {"record": "State", "fields": {}}}}),
        _moving({"odd": 1}),
        _without("tally"),
        _without("history"),
        _with_fewer_atoms,
    ],
)
def test_what_no_fit_has_written_is_refused(change, saved, tmp_path):
    folder = forged(saved, tmp_path / "forged", change)
    with pytest.raises(RunError, match="can't be gone on from") as refused:
        regularized().fit(X, checkpoint=folder)
    assert "\n" not in str(refused.value)


# --- another fit -----------------------------------------------------------------------------

OTHERS = {
    "one value": lambda: np.where(np.arange(X.size).reshape(X.shape) == 777, 1e-9, X),
    "another order": lambda: X[::-1].copy(),
    "fewer rows": lambda: X[:-1],
    "another type": lambda: X.astype(np.float32),
    "other columns": lambda: X[:, 1:],
}


@pytest.mark.parametrize("change", OTHERS)
def test_other_data_are_refused(change, saved):
    with pytest.raises(RunError, match=r"begun with other data set .*; needed the same"):
        regularized().fit(OTHERS[change](), checkpoint=saved)


def test_a_large_file_is_told_by_rows_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprints, "_WHOLE", 0)
    np.save(tmp_path / "data.npy", X)
    left(regularized(), tmp_path / "saved", data=tmp_path / "data.npy")
    regularized().fit(tmp_path / "data.npy", checkpoint=tmp_path / "saved")
    mapped = np.load(tmp_path / "data.npy", mmap_mode="r")
    regularized().fit(mapped, checkpoint=tmp_path / "saved")
    os.utime(tmp_path / "data.npy", (1, 1))
    for data in (tmp_path / "data.npy", mapped):
        with pytest.raises(RunError, match=r"begun with other data set \(file"):
            regularized().fit(data, checkpoint=tmp_path / "saved")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda: regularized(random_state=1), "random_state 0"),
        (lambda: regularized(n_epochs=5), "n_epochs 4"),
        (lambda: regularized(penalty="cae"), "penalty dae"),
        (lambda: regularized(penalty_options={"noise": "masking"}), "penalty_options none"),
        (lambda: regularized(preprocessing=shoal.Preprocessing("scale", added=0.1)), "scale"),
        (dictionary, "estimator RegularizedAutoencoder"),
    ],
)
def test_other_arguments_are_refused_by_name(other, said, saved):
    with pytest.raises(RunError, match=f"begun with other arguments .*{said}"):
        other().fit(X, checkpoint=saved)


def test_an_array_to_start_from_is_an_argument(tmp_path):
    left(dictionary(init=X[:20]), tmp_path / "saved")
    dictionary(init=X[:20].copy()).fit(X, checkpoint=tmp_path / "saved")
    with pytest.raises(RunError, match=r"other arguments \(init"):
        dictionary(init=X[1:21]).fit(X, checkpoint=tmp_path / "saved")


@pytest.mark.parametrize("name", ["shoal", "torch", "numpy"])
def test_another_version_is_refused(name, saved, monkeypatch):
    versions = checkpoints._versions() | {name: "0.0.1"}
    monkeypatch.setattr(checkpoints, "_versions", lambda: versions)
    with pytest.raises(RunError, match=f"begun with other versions .{name} .*{name} 0.0.1"):
        regularized().fit(X, checkpoint=saved)


def test_another_format_is_refused(saved, tmp_path):
    folder = forged(saved, tmp_path / "forged", lambda whole: whole | {"format_version": 2})
    with pytest.raises(RunError, match="found format_version 2; needed 1"):
        regularized().fit(X, checkpoint=folder)


def test_another_number_of_threads_is_warned_of(saved, tmp_path):
    folder = forged(saved, tmp_path / "forged", lambda whole: whole | {"threads": 99})
    with pytest.warns(UserWarning, match="begun with 99 threads"):
        regularized().iter_fit(X, checkpoint=folder).close()


def test_a_folder_of_other_things_a_file_and_one_in_use_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letter.txt").write_text("")
    for name, found in (("file", "Not a directory"), ("folder", "holds no checkpoint .letter.txt")):
        with pytest.raises(RunError, match=found):
            regularized().fit(X, checkpoint=tmp_path / name)
    steps = regularized().iter_fit(X, checkpoint=tmp_path / "used")
    next(steps)
    with pytest.raises(RunError, match="is writing it"):
        regularized().fit(X, checkpoint=tmp_path / "used")
    steps.close()
    regularized().fit(X, checkpoint=tmp_path / "used")


@pytest.mark.parametrize("every", ["", "s", "-1s", "nans", "x", "1.5", 0, -3, 1.5, None, True])
def test_how_often_is_a_number_of_steps_or_a_time(every, tmp_path):
    needed = "checkpoint_every: .* needed a number of steps, or a time such as '30s'"
    with pytest.raises(ArgumentError, match=needed):
        regularized().fit(X, checkpoint=tmp_path / "saved", checkpoint_every=every)
    assert os.listdir(tmp_path) == []
    assert Every.of("90") == Every(steps=90)
    assert Every.of(" 1.5m") == Every(seconds=90.0)


# --- what a rule remembers -------------------------------------------------------------------


class Seen(NamedTuple):
    """Of a rule of one's own."""

    total: torch.Tensor
    steps: int


@parts.register("rule")
@dataclass(frozen=True)
class Remembering(FixedStep):
    """It goes on by what it has seen."""

    def update(self, parameters, sums, memory, step, constrain):
        total = sums.losses.sum() if memory is None else memory.total + sums.losses.sum()
        slow = FixedStep(Constant(0.1 / float(1 + total)))
        parameters, _ = slow.update(parameters, sums, None, step, constrain)
        return parameters, Seen(total, step + 1)


def test_a_memory_that_is_not_registered_is_refused_before_the_fit(tmp_path):
    recipe = Recipe(TopK(2), Remembering(Constant(0.1)), 12, 64)
    whole = dictionary(recipe=recipe).fit(X)
    with pytest.raises(ArgumentError, match=r"type Seen in State.rule, which no checkpoint") as no:
        next(dictionary(recipe=recipe).iter_fit(X, checkpoint=tmp_path / "saved"))
    assert "register('memory')" in str(no.value)
    parts.register("memory")(Seen)
    try:
        left(dictionary(recipe=recipe), tmp_path / "saved", after=4)
        assert_same(dictionary(recipe=recipe).fit(X, checkpoint=tmp_path / "saved"), whole)
    finally:
        del parts._memories["Seen"]


def test_tensors_lie_as_they_lay_and_are_the_same_where_they_were():
    base = torch.arange(24.0).reshape(4, 6)
    given = {
        "columns": base.T,
        "twice": (base, base),
        "half": base.to(torch.bfloat16),
        "cut": base[:, 1:3],
        "none": torch.empty(0, 3),
        "numbers": (torch.tensor(float("nan")), torch.tensor(1e-300, dtype=torch.float64)),
        "words": ["a", None, True, 3, float("inf"), -0.0, 2**100],
        "array": np.arange(3, dtype=np.uint32),
    }
    plain, tensors = packed(given)
    found = unpacked(json.loads(json.dumps(plain, allow_nan=False)), tensors, CPU)
    assert found["columns"].stride() == base.T.stride()
    assert torch.equal(found["columns"], base.T)
    assert found["twice"][0] is found["twice"][1]
    assert torch.equal(found["half"], given["half"])
    assert torch.equal(found["cut"], given["cut"])
    assert found["none"].shape == (0, 3)
    assert [each.dtype for each in found["numbers"]] == [torch.float32, torch.float64]
    assert torch.isnan(found["numbers"][0])
    assert found["numbers"][1] == 1e-300
    assert found["words"] == given["words"]
    assert str(found["words"][5]) == "-0.0"
    np.testing.assert_array_equal(found["array"], given["array"], strict=True)


# --- signals and full disks ------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", MODELS)
def test_a_signal_saves_and_says_how_to_go_on(name, number, whole, tmp_path, monkeypatch):
    def step(keeper, moving, step=checkpoints.Keeper.step):
        if keeper.steps == 4:
            os.kill(os.getpid(), number)
        step(keeper, moving)

    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Keeper, "step", step)
        words = "the state after 5 steps is kept in .*saved; the same call goes on from there"
        with pytest.raises(signals.Interrupted, match=words):
            MODELS[name]().fit(X, checkpoint=tmp_path / "saved")
    after = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    assert before == after
    assert os.listdir(tmp_path / "saved") == [f"{5:012d}"]
    assert_same(MODELS[name]().fit(X, checkpoint=tmp_path / "saved"), whole[name])


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_whichever_call_of_a_save_fails_a_whole_one_stays(error, saved, tmp_path):
    folder = tmp_path / "saved"

    def fresh():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(saved, folder)

    fresh()
    plain = json.loads((folder / max(os.listdir(folder)) / "state.json").read_text())
    fit = plain["fit"]

    def save():
        with warnings.catch_warnings():  # one that can't be read counts as damaged
            warnings.simplefilter("ignore")
            keeper = checkpoints.keep(folder, 1, fit["arguments"], fit["data"], 0)
        try:
            moving = keeper.found(Parameters(torch.empty(20, 12), torch.empty(20)))
            keeper.steps += 1
            keeper.save(moving)
        finally:
            keeper.close()

    failed = 0
    more = [(shoal.files, "_rename")]
    for call, raised in faults.every_failure(tmp_path, save, error, before=fresh, more=more):
        names = sorted(name for name in os.listdir(folder) if name[0] == "0")
        for name in names[-2:]:  # one before them may be half removed
            checkpoints._read(folder / name)
        assert len(names) >= 2, call
        if raised is not None:
            failed += 1
            assert isinstance(raised, RunError), (call, raised)
            assert "\n" not in str(raised)
    assert failed > 10


def test_a_full_disk_ends_the_fit_and_leaves_the_last_state(whole, tmp_path, monkeypatch):
    def full(path, data, write=Path.write_bytes):
        if "000000000008" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(WriteError, match=r"can't be written \(No space left on device\)"):
            regularized().fit(X, checkpoint=tmp_path / "saved", checkpoint_every=4)
    assert os.listdir(tmp_path / "saved") == [f"{4:012d}"]
    assert_same(regularized().fit(X, checkpoint=tmp_path / "saved"), whole["regularized"])


def test_saving_takes_a_fiftieth_of_the_time_at_most(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])

    def write(*_, **__):
        now[0] += 3.0

    monkeypatch.setattr(checkpoints, "_write", write)
    keeper = checkpoints.keep(tmp_path / "saved", "30s", {}, {}, 0)
    saved = []
    for _ in range(500):
        now[0] += 1.0
        keeper.step(dict)
        if keeper.saved == keeper.steps:
            saved.append(keeper.steps)
    keeper.close()
    assert saved == [30, 180, 330, 480]  # 150 s apart, since a save takes 3
