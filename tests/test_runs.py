"""Runs as folders: what is written comes back, whole or not at all."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

import shoal
from made import SHORT
from run_folders import OLD, of_format_1, old_run, resealed
from shoal import (
    DictionaryAutoencoder,
    Preprocessing,
    Recipe,
    RunError,
    load_run,
    run_folder,
    save_run,
)
from shoal.estimators import METHODS
from shoal.files import whole_folder
from shoal.generative import SparseCoding, random_dictionary
from shoal.network import ReLU, Sigmoid, Softplus, TopK
from shoal.network.activations import Activated
from shoal.report import write_atoms, write_report
from shoal.report.run import read_run
from shoal.run_folder import claim_run, verify
from shoal.runs import evaluate
from shoal.training import Constant, FixedStep, Halving
from shoal.vocabulary import WriteError

FILES = ["atoms.png", "config.json", "dictionary.safetensors", "history.jsonl", "report.html"]


@pytest.fixture(scope="module")
def world() -> SimpleNamespace:
    made = SparseCoding(
        random_dictionary(24, 16, random_state=0), sparsity=2, low=1.0, high=2.0, noise=0.0
    )
    drawn = made.sample(2000, random_state=1)
    return SimpleNamespace(data=drawn.data, codes=drawn.codes, dictionary=made.dictionary)


def short(**changes: Any) -> DictionaryAutoencoder:
    return DictionaryAutoencoder(
        **{
            "n_components": 24,
            "n_nonzero_coefs": 2,
            "recipe": SHORT,
            "random_state": 0,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def fitted(world: SimpleNamespace) -> DictionaryAutoencoder:
    return short().fit(world.data)


@pytest.fixture(scope="module")
def saved(
    world: SimpleNamespace,
    fitted: DictionaryAutoencoder,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return save_run(fitted, folder, world.data, command="shoal fit x", seconds=1.5)


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    copy = tmp_path / "run"
    copy.mkdir()
    for name in FILES:
        (copy / name).write_bytes((saved / name).read_bytes())
    return copy


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def same_model(one: DictionaryAutoencoder, other: DictionaryAutoencoder, data: Any) -> None:
    for method in METHODS:
        codes = one.transform(data, method)
        back = other.transform(data, method)
        assert codes.dtype == back.dtype
        assert codes.tobytes() == back.tobytes()
        assert one.inverse_transform(codes).tobytes() == other.inverse_transform(back).tobytes()


# ------------------------------------------------------------------ there and back


@pytest.mark.parametrize(
    ("preprocessing", "dtype"),
    [
        (None, "float64"),
        (None, "float32"),
        ("center", "float64"),
        ("scale", "float32"),
        ("whiten", "float64"),
        (Preprocessing("whiten", roll_off=None, ridge=0.1), "float32"),
    ],
    ids=str,
)
def test_a_loaded_run_is_the_model(
    world: SimpleNamespace, tmp_path: Path, preprocessing: Any, dtype: str
) -> None:
    data = (world.data * np.arange(1, 17) + 2).astype(dtype)
    model = short(preprocessing=preprocessing).fit(data)
    loaded = load_run(save_run(model, tmp_path / "run", data))
    same_model(model, loaded, data)
    assert loaded.recipe_ == model.recipe_
    assert loaded.components_.dtype == dtype
    assert loaded.preprocessing_.spec == model.preprocessing_.spec
    assert loaded.n_features_in_ == 16
    assert loaded.n_steps_ == model.n_steps_
    assert loaded.score(data) == model.score(data)
    assert loaded.get_feature_names_out().tolist() == model.get_feature_names_out().tolist()


@pytest.mark.parametrize("activation", [ReLU(), Sigmoid(), Softplus(), TopK(3, signed=False)])
@pytest.mark.parametrize("model", ["sparse", "nonnegative"])
def test_other_activations_come_back(
    world: SimpleNamespace, tmp_path: Path, activation: Any, model: str
) -> None:
    recipe = Recipe(activation, FixedStep(Constant(0.01)), 4, 128, bias=Halving(-1.0, floor=-0.3))
    found = short(recipe=recipe, model=model).fit(world.data)
    loaded = load_run(save_run(found, tmp_path / "run", world.data))
    assert (loaded.bias_ == found.bias_).all()
    assert (loaded.bias_ < 0).all()
    assert loaded.recipe_ == recipe
    same_model(found, loaded, world.data)


def test_the_default_recipe_and_the_rest_of_the_arguments_come_back(
    world: SimpleNamespace, tmp_path: Path
) -> None:
    model = DictionaryAutoencoder(
        np.int64(24),
        2,
        init="random",
        preprocessing="center",
        random_state=np.int64(5),
        sparse_output=True,
    ).fit(world.data)
    loaded = load_run(save_run(model, tmp_path / "run", world.data))
    assert loaded.get_params() | {"preprocessing": None} == model.get_params() | {
        "preprocessing": None
    }
    assert loaded.transform(world.data).nnz == 2 * 2000
    same_model(
        model.set_params(sparse_output=False), loaded.set_params(sparse_output=False), world.data
    )


def test_a_run_from_before_there_was_sparse_output_opens(
    world: SimpleNamespace, fitted: DictionaryAutoencoder, run: Path
) -> None:
    spoil_config(of_format_1(run), lambda config: config["model"].pop("sparse_output"))
    loaded = load_run(run)
    assert loaded.sparse_output is False
    same_model(fitted, loaded, world.data)


def test_a_loaded_model_goes_on_learning(
    world: SimpleNamespace, fitted: DictionaryAutoencoder, saved: Path
) -> None:
    loaded = load_run(saved).partial_fit(world.data)
    assert loaded.n_steps_ > fitted.n_steps_
    assert loaded.fit(world.data).components_.shape == (24, 16)


def test_what_cannot_be_written_as_text_is_left_to_a_default(
    world: SimpleNamespace, tmp_path: Path
) -> None:
    init = random_dictionary(24, 16, random_state=1)
    model = short(init=init, random_state=np.random.RandomState(0)).fit(world.data)
    loaded = load_run(save_run(model, tmp_path / "run", world.data))
    assert loaded.init == "auto"
    assert loaded.random_state is None
    same_model(model, loaded, world.data)


def test_a_run_of_another_device_opens_on_any(
    world: SimpleNamespace, run: Path, fitted: DictionaryAutoencoder
) -> None:
    spoil_config(run, lambda config: config["model"].update(device="cuda:3"))
    resealed(run)
    loaded = load_run(run)
    assert loaded.device == "auto"
    np.testing.assert_allclose(
        loaded.transform(world.data), fitted.transform(world.data), atol=1e-6
    )


class _Mine:
    def __call__(self, z: Any) -> Activated:
        return ReLU()(z)


def test_a_part_of_your_own_is_refused_by_name(world: SimpleNamespace, tmp_path: Path) -> None:
    recipe = Recipe(_Mine(), FixedStep(Constant(0.01)), 2, 64)
    model = short(recipe=recipe)
    needed = r"^recipe: found a part of type _Mine in Recipe.activation, .*needed .*register"
    for begin in (model.iter_fit, model.fit, model.partial_fit):
        with pytest.raises(shoal.ArgumentError, match=needed):
            begin(world.data)
    assert not hasattr(model, "components_")
    fitted = short().fit(world.data)
    fitted.recipe_ = recipe
    with pytest.raises(shoal.ArgumentError, match=needed):
        save_run(fitted, tmp_path / "run", world.data)
    assert names(tmp_path) == []


# ------------------------------------------------------------------ what is in a folder


def test_a_run_is_five_plain_files(saved: Path) -> None:
    assert names(saved) == FILES
    for name in FILES:
        content = (saved / name).read_bytes()
        assert content
        assert not content.startswith(b"\x80")  # a pickle
        assert b"cnumpy" not in content
    assert (saved / "atoms.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (saved / "report.html").read_text()


def strict(text: str) -> Any:
    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} isn't JSON")

    return json.loads(text, parse_constant=refuse)


def test_the_configuration_says_what_was_run(
    saved: Path, fitted: DictionaryAutoencoder, world: SimpleNamespace
) -> None:
    config = strict((saved / "config.json").read_text())
    assert config["format"] == "shoal-run"
    assert config["format_version"] == 2
    assert config["command"] == "shoal fit x"
    assert config["seconds"] == {"fit": 1.5}
    assert config["source"] == {
        "name": "array",
        "n_samples": 2000,
        "n_features": 16,
        "feature_shape": None,
        "dtype": "float64",
    }
    assert config["model"]["n_components"] == 24
    assert config["recipe"]["activation"] == {"kind": "TopK", "k": 2, "signed": True}
    assert config["diagnosis"]["explained_variance"] == fitted.score(world.data)
    assert config["recovery"] is None
    history = [strict(line) for line in (saved / "history.jsonl").read_text().splitlines()]
    assert history == fitted.history_
    stored = load_file(saved / "dictionary.safetensors")
    np.testing.assert_array_equal(stored["dictionary"], fitted.components_)
    np.testing.assert_array_equal(
        stored["atom_activation"], (fitted.transform(world.data) != 0).mean(axis=0)
    )
    assert read_run(saved).activation is not None


@pytest.mark.parametrize(
    ("data", "m", "k"),
    [
        (np.ones((50, 6)), 3, 1),
        (np.zeros((50, 6)), 3, 1),
        (np.random.default_rng(0).standard_normal((50, 6)), 1, 1),
        (np.random.default_rng(0).standard_normal((50, 1)), 2, 1),
    ],
    ids=["constant", "zeros", "one atom", "one feature"],
)
def test_odd_data_still_makes_a_whole_run(data: np.ndarray, m: int, k: int, tmp_path: Path) -> None:
    model = DictionaryAutoencoder(m, k, random_state=0).fit(data)
    folder = save_run(model, tmp_path / "run", data)
    strict((folder / "config.json").read_text())
    for line in (folder / "history.jsonl").read_text().splitlines():
        strict(line)
    same_model(model, load_run(folder), data)


def test_a_data_frame_can_be_saved_with_its_model(world: SimpleNamespace, tmp_path: Path) -> None:
    frame = pd.DataFrame(world.data, columns=[f"c{i}" for i in range(16)])
    model = short().fit(frame)
    loaded = load_run(save_run(model, tmp_path / "run", frame))
    same_model(model, loaded, frame)


# ------------------------------------------------------------------ all or nothing


STAGES = ["evaluated", "_safetensors", "_json", "sealed", "atoms_bytes", "report_bytes"]
BEFORE = STAGES[:3]  # the folder is made


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("no"), OSError(28, "full")])
@pytest.mark.parametrize("stage", STAGES)
def test_a_failure_at_any_stage_leaves_what_was(
    world: SimpleNamespace,
    fitted: DictionaryAutoencoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    error: BaseException,
    existed: bool,
) -> None:
    folder = tmp_path / "run"
    if existed:
        folder.mkdir()
        (folder / "config.json").write_text("old")

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(f"shoal.runs.{stage}", fail)
    kind = type(error) if stage in BEFORE or not isinstance(error, OSError) else WriteError
    with pytest.raises(kind):
        save_run(fitted, folder, world.data, overwrite=True)
    assert names(tmp_path) == (["run"] if existed else [])
    assert not existed or names(folder) == ["config.json"]
    assert not existed or (folder / "config.json").read_text() == "old"


def test_a_failure_half_way_through_the_page_leaves_nothing(
    world: SimpleNamespace,
    fitted: DictionaryAutoencoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[list[str]] = []

    def fail(run: Any) -> bytes:
        seen.append(names(run.folder))
        raise KeyboardInterrupt

    monkeypatch.setattr("shoal.runs.report_bytes", fail)
    with pytest.raises(KeyboardInterrupt):
        save_run(fitted, tmp_path / "run", world.data)
    assert seen == [FILES[:-1]]  # all else was there, under another name
    assert names(tmp_path) == []


def test_overwrite_replaces_all_of_the_old_run(
    world: SimpleNamespace, fitted: DictionaryAutoencoder, run: Path
) -> None:
    for name in FILES:
        (run / name).write_text("old")
    save_run(fitted, run, world.data, overwrite=True)
    assert names(run) == FILES
    assert all((run / name).read_bytes() != b"old" for name in FILES)
    assert names(run.parent) == ["run"]


def test_overwrite_spares_a_folder_that_holds_anything_else(
    world: SimpleNamespace, fitted: DictionaryAutoencoder, run: Path
) -> None:
    (run / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"holds more than a run \(notes\.txt\)"):
        save_run(fitted, run, world.data, overwrite=True)
    assert (run / "notes.txt").read_text() == "mine"


def test_an_existing_folder_is_refused_before_any_work(
    world: SimpleNamespace,
    fitted: DictionaryAutoencoder,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def work(*_: Any) -> Any:
        raise AssertionError("work began")

    monkeypatch.setattr("shoal.runs.evaluated", work)
    before = {name: (run / name).read_bytes() for name in FILES}
    with pytest.raises(RunError, match="exists already; needed a new name"):
        save_run(fitted, run, world.data)
    assert {name: (run / name).read_bytes() for name in names(run)} == before


# ------------------------------------------------------------------ damage


def spoil_config(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((run / "config.json").read_text())
    change(config)
    (run / "config.json").write_text(json.dumps(config))


def spoil_tensors(run: Path, **changes: Any) -> None:
    tensors = load_file(run / "dictionary.safetensors")
    kept = {key: value for key, value in (tensors | changes).items() if value is not None}
    save_file(kept, run / "dictionary.safetensors")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without(key: str) -> Callable[[Path], None]:
    return lambda run: spoil_config(run, lambda config: config.pop(key))


def having(**changes: Any) -> Callable[[Path], None]:
    return lambda run: spoil_config(run, lambda config: config.update(changes))


def tensors(**changes: Any) -> Callable[[Path], None]:
    return lambda run: spoil_tensors(run, **changes)


def argument(**changes: Any) -> Callable[[Path], None]:
    return lambda run: spoil_config(run, lambda config: config["model"].update(changes))


def in_source(**changes: Any) -> Callable[[Path], None]:
    return lambda run: spoil_config(run, lambda config: config["source"].update(changes))


def in_recipe(**changes: Any) -> Callable[[Path], None]:
    return lambda run: spoil_config(run, lambda config: config["recipe"].update(changes))


def activation(**changes: Any) -> Callable[[Path], None]:
    return lambda run: spoil_config(
        run, lambda config: config["recipe"]["activation"].update(changes)
    )


def replace_text(run: Path, old: str, new: str) -> None:
    path = run / "config.json"
    path.write_text(path.read_text().replace(old, new, 1))


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def instead(run: Path, make: Callable[[Path], Any]) -> None:
    path = run / "dictionary.safetensors"
    path.unlink()
    make(path)


DEEP = "[" * 100_000 + "]" * 100_000

DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda run: (run / "config.json").unlink(), "config.json: missing"),
    "no tensors": (
        lambda run: (run / "dictionary.safetensors").unlink(),
        "dictionary.safetensors: missing",
    ),
    "cut config": (lambda run: truncate(run / "config.json"), "config.json: not JSON"),
    "cut tensors": (
        lambda run: truncate(run / "dictionary.safetensors"),
        "not a safetensors file",
    ),
    "empty tensors": (
        lambda run: (run / "dictionary.safetensors").write_bytes(b""),
        "not a safetensors file",
    ),
    "another format": (having(format="other"), "found format 'other'"),
    "a newer version": (having(format_version=99), "found format_version 99"),
    "no version": (having(format_version=True), "found format_version True"),
    "a list": (lambda run: (run / "config.json").write_text("[1]"), "found format 'list'"),
    "no model": (without("model"), "inconsistent .*model"),
    "a model in a word": (having(model="sparse"), "inconsistent"),
    "an unknown argument": (having(model={"device": "cpu", "depth": 3}), "inconsistent .*depth"),
    "no recipe": (without("recipe"), "inconsistent .*recipe"),
    "a recipe in a word": (having(recipe="default"), "inconsistent .*recipe"),
    "an unknown part": (having(recipe={"kind": "Magic"}), "inconsistent .*Magic"),
    "a part instead": (having(recipe={"kind": "TopK", "k": 2}), "inconsistent .*recipe"),
    "no preprocessing": (without("preprocessing"), "inconsistent .*preprocessing"),
    "unknown preprocessing": (having(preprocessing={"kind": "pca"}), "inconsistent .*'pca'"),
    "preprocessing without numbers": (
        having(preprocessing={"kind": "scale"}),
        "inconsistent .*no mean, std",
    ),
    "no source": (having(source=None), "inconsistent"),
    "no steps": (having(n_steps=-1), "inconsistent .*n_steps"),
    "a key twice": (
        lambda run: replace_text(run, '"seconds"', '"command": "", "seconds"'),
        "stands there twice",
    ),
    "nested too deeply": (
        lambda run: replace_text(run, '"n_steps"', f'"x": {DEEP}, "n_steps"'),
        "nested too deeply",
    ),
    "nested": (having(x=nested(100)), "nested too deeply"),
    "a huge number": (having(n_steps=10**400), "2.*63"),
    "a number of many digits": (
        lambda run: replace_text(run, '"n_steps": ', '"x": ' + "9" * 5000 + ', "n_steps": '),
        "not JSON",
    ),
    "a large word": (having(estimator="x" * 10_000), r"inconsistent .*xxx(…|\.\.\.)xxx"),
    "half a character": (having(estimator="\ud800"), "inconsistent .*ud800"),
    "more active than atoms": (activation(k=99), "TopK.k: found 99; needed .* from 1 to 24"),
    "a negative k": (activation(k=-1), "inconsistent .*k: found -1"),
    "k in words": (activation(k="2"), "inconsistent .*TopK.k: found '2'"),
    "k as a truth": (activation(k=True), "inconsistent .*TopK.k: found True"),
    "a sign in words": (activation(signed="no"), "inconsistent .*TopK.signed"),
    "a value unheard of": (activation(depth=2), "inconsistent .*'depth'"),
    "no activation": (in_recipe(activation=""), "inconsistent .*Recipe.activation: found ''"),
    "null activation": (in_recipe(activation=None), "inconsistent .*Recipe.activation"),
    "a number as activation": (in_recipe(activation=-1), "inconsistent .*Recipe.activation"),
    "lists as activation": (in_recipe(activation=[[]]), "inconsistent .*Recipe.activation"),
    "a penalty as activation": (
        in_recipe(activation={"kind": "L1", "strength": 1.0}),
        "inconsistent .*Recipe.activation",
    ),
    "a schedule in words": (
        in_recipe(step_size={"kind": "FixedStep", "schedule": "fast"}),
        "inconsistent .*FixedStep.schedule",
    ),
    "steps in halves": (in_recipe(n_steps=0.5), "inconsistent .*Recipe.n_steps"),
    "k in two ways": (having(n_nonzero_coefs=5), "n_nonzero_coefs: found 5; needed 2"),
    "k of nothing": (having(n_nonzero_coefs=0), "inconsistent .*n_nonzero_coefs"),
    "other atoms": (argument(n_components=3), "inconsistent .*model.n_components: found 3"),
    "atoms in words": (argument(n_components="24"), "inconsistent .*n_components"),
    "an unknown model": (argument(model="dense"), "inconsistent .*'dense'"),
    "a mixture of twos": (argument(model="mixture"), "inconsistent .*n_nonzero_coefs"),
    "sparse in words": (argument(sparse_output="yes"), "inconsistent .*sparse_output"),
    "a device of no name": (argument(device=3), "inconsistent .*device"),
    "names in lists": (having(feature_names=[["a"]] * 16), "inconsistent .*feature_names"),
    "too few names": (having(feature_names=["a"]), "inconsistent .*feature_names: found 1"),
    "names in a word": (having(feature_names="abcdefghijklmnop"), "inconsistent .*feature_names"),
    "another picture": (in_source(feature_shape=[3, 3]), "inconsistent .*feature_shape"),
    "a picture of nothing": (in_source(feature_shape=[]), "inconsistent .*feature_shape"),
    "a picture upside down": (in_source(feature_shape=[-4, -4]), "inconsistent .*feature_shape"),
    "features unlike": (in_source(n_features=17), "inconsistent .*n_features"),
    "long atoms": (tensors(dictionary=np.ones((24, 16))), "inconsistent .*length 4"),
    "one long atom": (
        tensors(dictionary=np.vstack([np.eye(16), np.eye(16)[:7], 1.01 * np.eye(16)[:1]])),
        "inconsistent .*atom 23 of length 1.01",
    ),
    "a bias of another type": (tensors(bias=np.zeros(24, np.float32)), "inconsistent .*bias"),
    "a bias without end": (tensors(bias=np.full(24, np.inf)), "inconsistent .*bias"),
    "activity per feature": (tensors(atom_activation=np.zeros(16)), "inconsistent .*atom_act"),
    "no bias": (tensors(bias=None), "inconsistent .*bias"),
    "a bias of another length": (tensors(bias=np.zeros(23)), "inconsistent .*bias"),
    "a 1-d dictionary": (tensors(dictionary=np.zeros(16)), "`dictionary`: found shape"),
    "no dictionary": (tensors(dictionary=None), "`dictionary`: found none"),
    "whole numbers": (tensors(dictionary=np.ones((24, 16), np.int64)), "inconsistent .*dictionary"),
    "NaN": (tensors(dictionary=np.full((24, 16), np.nan)), "inconsistent .*dictionary"),
    "other features": (tensors(dictionary=np.ones((24, 15))), "inconsistent .*preprocessing"),
    "a pipe": (lambda run: instead(run, os.mkfifo), "dictionary.safetensors: is no regular file"),
    "a folder": (lambda run: instead(run, os.mkdir), "dictionary.safetensors: is no regular file"),
    "a device": (
        lambda run: instead(run, lambda path: path.symlink_to("/dev/zero")),
        "dictionary.safetensors: is no regular file",
    ),
    "a hole of a terabyte": (
        lambda run: os.truncate(run / "dictionary.safetensors", 2**40),
        "has 1099511627776 bytes; needed at most",
    ),
    "a config of a terabyte": (
        lambda run: os.truncate(run / "config.json", 2**40),
        "config.json: has 1099511627776 bytes; needed at most 268435456",
    ),
    "features unsaid": (
        lambda run: spoil_tensors(run, **{"preprocessing.n_features": np.zeros(3, np.int64)}),
        "inconsistent",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_what_an_old_run_must_say_is_asked_for_in_one_line(run: Path, case: str) -> None:
    spoil, message = DAMAGE[case]
    load_run(of_format_1(run))  # sound until now
    spoil(run)
    with pytest.raises(RunError, match=message) as caught:
        load_run(run)
    assert "\n" not in str(caught.value)
    assert str(run) in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(run))


@pytest.mark.parametrize("case", DAMAGE)
def test_any_change_of_a_run_is_noticed(run: Path, case: str) -> None:
    load_run(run)
    DAMAGE[case][0](run)
    with pytest.raises(RunError) as caught:
        load_run(run)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(run))
    (damaged,) = (each.name for each in verify(run) if each.sound is False)
    assert damaged in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "dictionary.safetensors"])
def test_one_bit_anywhere_is_noticed_and_the_file_is_named(run: Path, name: str) -> None:
    whole = (run / name).read_bytes()
    for place in np.linspace(0, len(whole) - 1, 60).astype(int):
        data = bytearray(whole)
        data[place] ^= 1 << int(place % 8)
        (run / name).write_bytes(data)
        with pytest.raises(RunError, match=rf"{name}: "):
            load_run(run)


def test_a_configuration_changed_by_hand_is_told_as_such(run: Path) -> None:
    having(seconds={"fit": 1.0})(run)
    needed = r"config.json: does not match its checksum \(changed or damaged\); needed the file as"
    with pytest.raises(RunError, match=needed):
        load_run(run)


def test_check_sums_cannot_be_dropped_by_an_older_version_number(run: Path) -> None:
    having(format_version=1)(run)
    with pytest.raises(RunError, match="check sums with format_version 1"):
        load_run(run)


@pytest.mark.parametrize("name", ["dictionary.safetensors", "history.jsonl", *FILES[:1], FILES[-1]])
def test_a_file_of_another_run_is_noticed(world: SimpleNamespace, run: Path, name: str) -> None:
    assert all(each.sound for each in verify(run))
    other = save_run(short(random_state=1).fit(world.data), run.with_name("other"), world.data)
    (run / name).write_bytes((other / name).read_bytes())
    assert [each.name for each in verify(run) if not each.sound] == [name]
    if name in ("dictionary.safetensors", "history.jsonl"):
        with pytest.raises(RunError, match=f"{name}: does not match"):
            read_run(run)
    if name == "dictionary.safetensors":  # nor by one that has the sums put right
        with pytest.raises(RunError, match=f"{name}: of another run"):
            load_run(resealed(run))


def test_page_and_picture_have_checks_of_their_own_and_are_written_again(run: Path) -> None:
    for name in ("report.html", "atoms.png"):
        for spoil in (truncate, lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?")):
            whole = (run / name).read_bytes()
            spoil(run / name)
            (found,) = (each for each in verify(run) if each.sound is False)
            assert found.name == name
            assert "shoal report" in found.found
            write_report(run)
            write_atoms(run)
            assert all(each.sound for each in verify(run))
            assert (run / name).read_bytes() == whole


@pytest.mark.parametrize("kind", ["dictionary", "regularized"])
def test_a_run_from_before_there_were_check_sums_opens(kind: str, tmp_path: Path) -> None:
    run = old_run(kind, tmp_path / "run")
    loaded = load_run(run)
    data, codes = (np.load(OLD / f"{kind}_{what}.npy") for what in ("data", "codes"))
    if kind == "dictionary":
        assert loaded.feature_names_in_.tolist() == list("abcdef")
        data = pd.DataFrame(data, columns=list("abcdef"))
    np.testing.assert_allclose(loaded.transform(data), codes, rtol=1e-5, atol=1e-5)
    assert read_run(run).history
    write_report(run)
    write_atoms(run)
    assert {each.sound for each in verify(run)} == {None}


OLD_REGULARIZED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no activation": (having(activation=""), "activation: found ''"),
    "one without a bend": (having(activation={"kind": "TopK", "k": 2}), ""),
    "no penalty": (having(penalty=None), "penalty: found None"),
    "an activation as penalty": (having(penalty={"kind": "ReLU"}), "penalty: found ReLU"),
    "units that don't divide": (having(activation={"kind": "Maxout", "pieces": 2}), "2 pieces"),
    "atoms of any length": (argument(weight_length="free"), ""),
    "another length": (argument(weight_length="long"), "weight_length"),
    "epochs in words": (argument(n_epochs="3"), "n_epochs"),
    "deviations of 0": (tensors(**{"preprocessing.std": np.zeros(6)}), "preprocessing.std"),
    "a mean that is none": (
        tensors(**{"preprocessing.mean": np.full(6, np.nan)}),
        "preprocessing.mean",
    ),
    "a mean of other features": (tensors(**{"preprocessing.mean": np.zeros(5)}), "shape"),
    "short atoms": (tensors(dictionary=np.eye(7, 6, dtype=np.float32) / 2), "dictionary"),
}


@pytest.mark.parametrize("case", OLD_REGULARIZED)
def test_an_old_regularized_run_is_checked_too(tmp_path: Path, case: str) -> None:
    run = old_run("regularized", tmp_path / "run")
    spoil, message = OLD_REGULARIZED[case]
    spoil(run)
    if not message:
        load_run(run)
        return
    with pytest.raises(RunError, match=f"inconsistent .*{message}"):
        load_run(run)


def test_a_second_save_into_one_folder_hears_of_the_first_before_its_work(
    world: SimpleNamespace,
    fitted: DictionaryAutoencoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with claim_run(tmp_path / "run") as held:
        with monkeypatch.context() as patch:
            patch.setattr("shoal.runs.evaluated", None)  # no work
            with pytest.raises(RunError, match="is writing it"):
                save_run(fitted, tmp_path / "run", world.data)
        save_run(fitted, held, world.data)
    assert names(tmp_path) == ["run"]
    load_run(tmp_path / "run")


def test_a_run_that_is_replaced_while_it_is_read_is_read_anew(
    run: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that was opened loses its files after the first one."""
    real, seen = run_folder._read, []

    def read(path: Path, folder: Any, *most: Any) -> bytes:
        data = real(path, folder, *most)
        seen.append(path.name)
        if len(seen) == 1:
            with whole_folder(run, overwrite=True) as partial:
                for name in FILES:
                    (partial / name).write_bytes((saved / name).read_bytes())
        return data

    monkeypatch.setattr(run_folder, "_read", read)
    load_run(run)
    assert seen == ["config.json", "config.json", "dictionary.safetensors"]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("nothing", "found nothing"),
        ("file", "found a file"),
        ("empty", "missing"),
    ):
        with pytest.raises(RunError, match=message):
            load_run(tmp_path / name)


# ------------------------------------------------------------------ evaluation


def planted_file(world: SimpleNamespace, folder: Path, **changes: Any) -> Path:
    arrays = {"data": world.data, "dictionary": world.dictionary, "codes": world.codes} | changes
    np.savez(folder / "planted.npz", **{k: v for k, v in arrays.items() if v is not None})
    return folder / "planted.npz"


@pytest.fixture(scope="module")
def good(world: SimpleNamespace) -> DictionaryAutoencoder:
    return DictionaryAutoencoder(24, 2, random_state=0).fit(world.data)


def test_evaluation_without_the_truth(world: SimpleNamespace, good: DictionaryAutoencoder) -> None:
    found = evaluate(good, world.data)
    assert found["recovery"] is None
    assert "support" not in found["diagnosis"]["codes"]["encoder"]
    assert found["diagnosis"]["n_samples"] == 2000
    assert found["diagnosis"]["explained_variance"] == good.score(world.data)
    assert found["diagnosis"]["codes"]["pursuit"]["mse"] == good.diagnose(world.data, "pursuit").mse
    assert found["diagnosis"]["dead_atoms"] == []
    assert found["diagnosis"]["l0_histogram"] == [0, 0, 2000]
    strict(json.dumps(found, allow_nan=False))


def test_evaluation_with_the_truth(
    world: SimpleNamespace, good: DictionaryAutoencoder, tmp_path: Path
) -> None:
    found = evaluate(good, planted_file(world, tmp_path))
    recovery = found["recovery"]
    assert recovery["recovered"]["0.95"] == 1
    expected = shoal.recovery(good.components_, world.dictionary)
    assert recovery["mean_distance"] == pytest.approx(expected.mean_distance, abs=1e-12)
    assert len(recovery["cosines"]) == 24
    before = recovery["before_polish"]
    plateau = shoal.recovery(good.unpolished_components_, world.dictionary)
    assert before["mean_distance"] == pytest.approx(plateau.mean_distance, abs=1e-12)
    assert recovery["mean_distance"] < before["mean_distance"]
    encoder, pursuit = (found["diagnosis"]["codes"][name] for name in ("encoder", "pursuit"))
    support = shoal.support_recovery(good.transform(world.data), world.codes, expected)
    assert encoder["support"]["exact"] == support.to_dict()["exact"]
    assert recovery["support"] == encoder["support"]
    assert pursuit["support"]["exact"] > encoder["support"]["exact"]
    strict(json.dumps(found, allow_nan=False))


@pytest.mark.parametrize("known", [False, True])
def test_codes_are_inferred_once_a_method(
    world: SimpleNamespace,
    good: DictionaryAutoencoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    known: bool,
) -> None:
    seen: list[tuple[str, int]] = []
    real = DictionaryAutoencoder._code

    def counted(self: Any, parameters: Any, batch: Any, method: str, *more: Any) -> Any:
        seen.append((method, len(batch)))
        return real(self, parameters, batch, method, *more)

    monkeypatch.setattr(DictionaryAutoencoder, "_code", counted)
    evaluate(good, planted_file(world, tmp_path) if known else world.data)
    assert seen == [("encoder", 2000), ("pursuit", 2000)]


def test_evaluation_does_not_depend_on_the_form_of_the_codes(
    world: SimpleNamespace,
    good: DictionaryAutoencoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = planted_file(world, tmp_path)
    expected = evaluate(good, path)
    del expected["recovery"]["before_polish"]  # known of a fit, not of a file
    good = load_run(save_run(good, tmp_path / "run", world.data))
    assert evaluate(good.set_params(sparse_output=True), path) == expected
    monkeypatch.setattr("shoal.estimators.base._CHUNK", 300)
    monkeypatch.setattr("shoal.estimators.base._CROWDED", 0.0)  # dense from the second block on
    found = evaluate(good, path)
    assert found["recovery"] == expected["recovery"]
    assert found["diagnosis"]["mse"] == pytest.approx(expected["diagnosis"]["mse"], rel=1e-12)


def test_the_supports_of_smooth_codes_are_scored(world: SimpleNamespace, tmp_path: Path) -> None:
    recipe = Recipe(Sigmoid(), FixedStep(Constant(0.01)), 2, 128)
    support = evaluate(short(recipe=recipe).fit(world.data), planted_file(world, tmp_path))
    encoder = support["recovery"]["support"]
    assert encoder["recall"] == 1
    assert encoder["precision"] == pytest.approx(2 / 24)


def test_evaluation_with_a_dictionary_and_no_codes(
    world: SimpleNamespace, good: DictionaryAutoencoder, tmp_path: Path
) -> None:
    found = evaluate(good, planted_file(world, tmp_path, codes=None))
    assert found["recovery"]["recovered"]["0.95"] == 1
    assert "support" not in found["recovery"]


@pytest.mark.parametrize("kind", ["center", "scale", "whiten"])
def test_recovery_is_scored_in_the_space_of_the_atoms(
    world: SimpleNamespace, tmp_path: Path, kind: str
) -> None:
    stretched = world.dictionary * np.linspace(1, 4, 16)
    data = world.codes @ stretched + 5
    spec = Preprocessing(kind, roll_off=None) if kind == "whiten" else kind
    model = DictionaryAutoencoder(24, 2, preprocessing=spec, random_state=0).fit(data)
    path = planted_file(world, tmp_path, data=data, dictionary=stretched)
    found = evaluate(model, path)["recovery"]
    assert found["recovered"]["0.95"] == 1
    assert found["max_distance"] < 0.1
    plain = shoal.recovery(model.components_, stretched)
    if kind == "center":
        assert found["max_distance"] == pytest.approx(plain.max_distance, abs=1e-9)
    else:  # without the change of space the score would be another
        assert plain.max_distance > 2 * found["max_distance"]


def test_a_missing_atom_shows(world: SimpleNamespace, tmp_path: Path) -> None:
    few = DictionaryAutoencoder(12, 2, random_state=0).fit(world.data)
    found = evaluate(few, planted_file(world, tmp_path))["recovery"]
    assert found["recovered"]["0.95"] <= 0.5
    assert found["permutation"].count(-1) == 12


def test_large_data_is_evaluated_on_evenly_spaced_rows(
    world: SimpleNamespace,
    good: DictionaryAutoencoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shoal.estimators.evaluation._EVALUATED", 500)
    found = evaluate(good, planted_file(world, tmp_path))
    index = np.linspace(0, 1999, 500).round().astype(int)
    assert found["diagnosis"]["n_samples"] == 500
    assert found["diagnosis"]["explained_variance"] == good.score(world.data[index])
    # Codes of the truth are taken at the same rows.
    assert found["recovery"]["support"]["exact"] > 0.3


def test_a_stream_is_saved_without_an_evaluation(world: SimpleNamespace, tmp_path: Path) -> None:
    def flow() -> Iterator[np.ndarray]:
        return iter(np.array_split(world.data, 5))

    source = shoal.open_source(flow)
    model = short().fit(source)
    folder = save_run(model, tmp_path / "run", source)
    assert names(folder) == FILES
    config = strict((folder / "config.json").read_text())
    assert config["source"]["n_samples"] is None
    assert "explained_variance" not in config["diagnosis"]
    assert config["recovery"] is None
    assert read_run(folder).activation is None
    same_model(model, load_run(folder), world.data)


def test_data_of_other_features_is_refused(good: DictionaryAutoencoder) -> None:
    with pytest.raises(shoal.ArgumentError, match=r"^source: found 5 features; needed 16"):
        evaluate(good, np.ones((9, 5)))


def test_column_names_come_back(world: SimpleNamespace, tmp_path: Path) -> None:
    frame = pd.DataFrame(world.data, columns=[f"c{i}" for i in range(16)])
    model = DictionaryAutoencoder(20, 2, random_state=0).fit(frame)
    loaded = load_run(save_run(model, tmp_path / "run", frame))
    assert loaded.feature_names_in_.tolist() == list(frame.columns)
    np.testing.assert_array_equal(loaded.transform(frame), model.transform(frame))
    np.testing.assert_array_equal(
        loaded.transform(frame[frame.columns[::-1]]), model.transform(frame)
    )
    with pytest.raises(ValueError, match=r"^X: found no column c3 in frame"):
        loaded.transform(frame.drop(columns="c3"))


def test_the_device_to_use_a_run_on_can_be_chosen(run: Path) -> None:
    assert load_run(run).device == "cpu"
    assert load_run(run, device="auto").device == "auto"
