"""The command line: the chain a newcomer types, and what each mistake is answered with."""

import ast
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import typer
from scipy import sparse

import shoal
from commands import done, refused, shoal_
from run_folders import of_format_1
from shoal.cli import app, screen
from shoal.cli.application import launched
from shoal.cli.options import Encoder, Laws, Method, Opening, Sizes
from shoal.estimators import METHODS
from shoal.training.encoding import ENCODERS

FILES = ["atoms.png", "config.json", "dictionary.safetensors", "history.jsonl", "report.html"]
GENERATE = "generate sparse --n-features 16 --atoms 24 -k 2 --samples 2000 --noise 0 --seed 0"


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with planted.npz and a run on it; not to be written to."""
    folder = tmp_path_factory.mktemp("cli")
    done(*GENERATE.split(), "-o", folder / "planted.npz")
    done("fit", folder / "planted.npz", "-m", 24, "-k", 2, "--seed", 0, "-o", folder / "run")
    return folder


@pytest.fixture
def here(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder that reaches the shared one by a link."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


# ------------------------------------------------------------------ the chain


def test_generate_writes_data_dictionary_and_codes(shared: Path, here: Path) -> None:
    with np.load(shared / "planted.npz") as file:
        arrays = {name: file[name] for name in file.files}
    assert sorted(arrays) == ["codes", "data", "dictionary", "laws"]
    assert json.loads(str(arrays["laws"]))["support"] == {"kind": "UniformSupport", "k": 2}
    assert arrays["data"].shape == (2000, 16)
    assert arrays["dictionary"].shape == (24, 16)
    assert ((arrays["codes"] != 0).sum(axis=1) == 2).all()
    np.testing.assert_allclose(arrays["codes"] @ arrays["dictionary"], arrays["data"], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(arrays["dictionary"], axis=1), 1)
    magnitude = np.abs(arrays["codes"][arrays["codes"] != 0])
    assert magnitude.min() >= 1
    assert magnitude.max() <= 2
    done(*GENERATE.split(), "-o", "again.npz")
    assert (here / "again.npz").read_bytes() == (shared / "planted.npz").read_bytes()
    done(*GENERATE.replace("--seed 0", "--seed 1").split(), "-o", "other.npz")
    with np.load("other.npz") as file:
        assert not np.allclose(file["dictionary"], arrays["dictionary"])


@pytest.mark.parametrize("world", ["sparse", "nonnegative", "mixture", "independent"])
@pytest.mark.parametrize("atoms", ["random", "low-coherence", "orthonormal-union"])
def test_every_world_can_be_generated(here: Path, world: str, atoms: str) -> None:
    done("generate", world, "-n", 8, "-m", 16, "--samples", 50, "--atoms-from", atoms,
         "--noise", 0.1, "-o", "x.npz")  # fmt: skip
    with np.load("x.npz") as file:
        assert file["data"].shape == (50, 8)
        assert file["codes"].shape == (50, 16)
        assert (file["codes"] < 0).any() == (world in ("sparse", "independent"))


def test_the_dictionary_stays_when_the_number_of_samples_changes(here: Path) -> None:
    for samples in (50, 60):
        done("generate", "sparse", "--samples", samples, "-o", f"{samples}.npz")
    with np.load("50.npz") as few, np.load("60.npz") as more:
        np.testing.assert_array_equal(few["dictionary"], more["dictionary"])


def test_fit_writes_a_run_and_says_where(shared: Path, here: Path) -> None:
    result = done("fit", shared / "planted.npz", "-m", 24, "-k", 2, "-o", "deep/run")
    assert names(here / "deep" / "run") == FILES
    assert names(here / "deep") == ["run"]
    for name in ("", "report.html", "atoms.png"):
        assert str(Path("deep/run") / name) in result.stdout
    assert "recovered at 0.95" in result.stdout
    # The same seed: the same bits, but for the time it took.
    for name in ("dictionary.safetensors", "atoms.png"):
        assert (here / "deep/run" / name).read_bytes() == (shared / "run" / name).read_bytes()
    model = shoal.DictionaryAutoencoder(24, 2, random_state=0)
    model.fit(str(shared / "planted.npz"))
    np.testing.assert_array_equal(model.components_, shoal.load_run("deep/run").components_)


def test_the_encoder_may_be_asked_for(shared: Path, here: Path) -> None:
    assert get_args(Encoder) == ENCODERS
    words = ("fit", shared / "planted.npz", "-m", 16, "-k", 2, "-q")
    done(*words, "-o", "tied", "--encoder", "tied")
    done(*words, "-o", "own", "--encoder", "untied", "--n-unrolled", 1)
    tied, own = (shoal.load_run(here / name) for name in ("tied", "own"))
    assert tied.encoder_ is None
    assert own.encoder_.shape == tied.components_.shape
    assert own.recipe_.encoder.weights == "untied"
    assert own.get_params()["n_unrolled"] == 1
    assert tied.components_.tobytes() == own.components_.tobytes()
    assert "encoder" in refused("fit", shared / "planted.npz", "-o", "no", "--encoder", "own")
    found = refused(*words, "-o", "no", "--encoder", "tied", "--joint")
    assert "joint=True" in found
    assert not (here / "no").exists()


def test_the_methods_are_those_of_the_estimator() -> None:
    assert get_args(Method) == METHODS


def test_generate_writes_what_is_read_where_it_lies(here: Path) -> None:
    made = ("generate", "sparse", "-n", 8, "-m", 16, "--samples", 50, "-q", "-o")
    for name in ("x.npz", "x.safetensors", "x.npy"):
        done(*made, name)
    with np.load("x.npz") as planted:
        for name in ("x.safetensors", "x.npy"):
            source = shoal.open_source(name)
            np.testing.assert_array_equal(source.rows(range(50)), planted["data"])
        source = shoal.open_source("x.safetensors")
        np.testing.assert_array_equal(source.truth.dictionary, planted["dictionary"])
    assert "a name that ends in .npz or .safetensors or .npy" in refused(*made, "x.csv")
    words = ("generate", "synth-1k", "--samples", 50, "-o", "x.safetensors")
    assert "a name that ends in .npz" in refused(*words)


SEVERAL = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def test_several_processes_are_for_fit_alone(here: Path) -> None:
    result = shoal_("generate", "sparse", "-o", "x.npz", **SEVERAL)
    assert result.exit_code == 2
    assert "torchrun: found 2 processes for generate; needed one process" in result.stderr


@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["info", "nowhere"], 2)])
@pytest.mark.parametrize("rank", [None, 0, 1])
def test_one_of_several_processes_ends_as_it_stands(words, code, rank):
    script = """
import atexit, sys
from shoal.cli import main
atexit.register(print, "taken apart")
main()
"""
    env = dict(os.environ)
    if rank is not None:
        env |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, env=env
    )
    assert done.returncode == code
    assert ("taken apart" in done.stdout) == (rank is None)
    if rank is None and not code:
        assert done.stdout.strip()
    assert not Path("x.npz").exists()
    for name in SEVERAL:  # another program's variables
        left = {key: value for key, value in SEVERAL.items() if key != name}
        assert launched(left) == (0, 1)
    assert launched(SEVERAL) == (1, 2)
    assert launched({**SEVERAL, "RANK": "a"}) == (0, 1)


def test_of_several_processes_one_speaks(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "_Voice", type("_Voice", (screen._Voice,), {}))
    screen.leave_to_another()
    result = shoal_("info", "nothing")
    assert (result.exit_code, result.output) == (2, "")
    screen.tell_once(lambda: True)  # it was the first to end badly
    assert shoal_("info", "nothing").stderr.startswith("error: ")


@pytest.mark.parametrize("method", METHODS)
def test_transform_writes_the_codes_of_the_model(shared: Path, here: Path, method: str) -> None:
    done("transform", shared / "run", shared / "planted.npz", "-o", "codes.npz",
         "--method", method)  # fmt: skip
    codes = sparse.load_npz("codes.npz")
    assert codes.shape == (2000, 24)
    with np.load(shared / "planted.npz") as file:
        expected = shoal.load_run(shared / "run").transform(file["data"], method)
    np.testing.assert_array_equal(codes.toarray(), expected)
    assert names(here) == ["codes.npz"]


def test_transform_makes_no_dense_codes(
    shared: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("codes were made dense")

    monkeypatch.setattr("shoal.estimators.base.fast_encode", refuse)
    monkeypatch.setattr("shoal.network.codes.SparseCodes.dense", refuse)
    monkeypatch.setattr("shoal.estimators.base._CHUNK", 300)
    for method in METHODS:
        words = ("transform", shared / "run", shared / "planted.npz", "--method", method)
        output = done(*words, "-o", f"{method}.npz").stdout
        assert f"2000 x 24 codes, 2 active a sample: {method}.npz" in output
        codes = sparse.load_npz(f"{method}.npz")
        assert codes.format == "csr"
        assert codes.has_canonical_format
        assert codes.nnz == np.count_nonzero(codes.data) == 4000


def test_score_prints_tables(shared: Path) -> None:
    output = done("score", shared / "run", shared / "planted.npz").stdout
    for word in (
        "explained",
        "variance",
        "encoder",
        "pursuit",
        "|cosine| >= 0.95",
        "100.00%",
        "mcc",
    ):
        assert word in output


def test_score_json_is_only_json(shared: Path) -> None:
    result = done("score", shared / "run", shared / "planted.npz", "--json")
    found = json.loads(result.stdout)
    assert found["recovery"]["recovered"]["0.95"] == 1
    assert found == shoal.runs.evaluate(shoal.load_run(shared / "run"), shared / "planted.npz")


@pytest.mark.parametrize("recipe", ["topk", "batchtopk"])
def test_fit_trains_an_autoencoder_by_name(shared: Path, here: Path, recipe: str) -> None:
    asked = ("-m", 24, "-k", 2, "--model", "nonnegative", "--seed", 0)
    done("fit", shared / "planted.npz", *asked, "--recipe", recipe, "-q", "-o", "run")
    made = shoal.load_run("run")
    assert made.encoder_ is not None
    assert (made.thresholds_ is None) == (recipe == "topk")
    done("export", "run", "--to", "saelens", "-o", "sae")
    config = json.loads((here / "sae" / "cfg.json").read_text())
    assert config["architecture"] == ("topk" if recipe == "topk" else "jumprelu")


def test_score_says_what_fewer_and_more_atoms_explain(shared: Path) -> None:
    asked = ("score", shared / "run", shared / "planted.npz", "--curve")
    found = json.loads(done(*asked, "--json").stdout)["curve"]
    assert list(found) == ["1", "2", "4", "8"]
    assert found["1"] < 0.95 < found["2"] <= found["4"] <= 1
    output = done(*asked).stdout
    assert "atoms a sample" in output
    assert "of the square" in output


def test_score_without_the_truth_says_so(shared: Path, here: Path) -> None:
    with np.load(shared / "planted.npz") as file:
        np.save("plain.npy", file["data"])
    assert (
        "truth behind this source isn't known" in done("score", shared / "run", "plain.npy").stdout
    )


def test_report_writes_page_and_picture_again(shared: Path, here: Path) -> None:
    done("fit", shared / "planted.npz", "-m", 24, "-k", 2, "-o", "run", "-q")
    (here / "run" / "report.html").unlink()
    (here / "run" / "atoms.png").unlink()
    output = done("report", "run").stdout
    assert names(here / "run") == FILES
    assert "report.html" in output
    assert "atoms.png" in output


def test_info_says_what_a_run_holds(shared: Path) -> None:
    output = done("info", shared / "run").stdout
    for word in ("planted.npz, 2000 x 16", "sparse, 24 atoms by default", "coherence", "100.00%"):
        assert word in output


def test_quiet_says_nothing(shared: Path, here: Path) -> None:
    for words in (
        ("fit", shared / "planted.npz", "-m", 24, "-k", 2, "-o", "run"),
        ("transform", shared / "run", shared / "planted.npz", "-o", "codes.npz"),
        ("generate", "sparse", "--samples", 20, "-o", "x.npz"),
    ):
        assert done(*words, "--quiet").output == ""


def test_preprocessing_goes_with_the_run(shared: Path, here: Path) -> None:
    done("fit", shared / "planted.npz", "-m", 24, "-k", 2, "--preprocess", "whiten",
         "--roll-off", 0.9, "-o", "run", "-q")  # fmt: skip
    assert shoal.load_run("run").preprocessing_.spec == shoal.Preprocessing("whiten", roll_off=0.9)


def test_named_samples_and_folders_of_images_are_sources(here: Path) -> None:
    from PIL import Image

    done("fit", "sample:digits", "-m", 10, "-k", 1, "--model", "mixture", "-o", "digits", "-q")
    config = json.loads((here / "digits" / "config.json").read_text())
    assert config["source"]["feature_shape"] == [8, 8]
    (here / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)
    Image.fromarray(noise).save("photos/a.png")
    done("fit", "photos", "--patch-size", 4, "--n-patches", 300, "-m", 8, "-o", "patches", "-q")
    config = json.loads((here / "patches" / "config.json").read_text())
    assert config["source"]["feature_shape"] == [4, 4]
    assert config["source"]["n_samples"] == 300


def test_what_is_not_known_is_found_and_noted(here: Path) -> None:
    made = ("--n-features", 24, "--atoms", 32, "-k", 2, "--samples", 3000, "-q")
    done("generate", "sparse", *made, "-o", "world.npz")
    result = done("fit", "world.npz", "-m", 40, "-k", "auto", "-o", "found", "-q")
    config = json.loads((here / "found" / "config.json").read_text())
    assert config["n_nonzero_coefs"] == 2
    assert config["recovery"]["recovered"]["0.99"] == 1
    assert 32 <= config["model"]["n_components"] < 40
    assert "note: n_components=40: the data have use for 3" in result.stderr
    assert ".py" not in result.stderr
    assert shoal.load_run(here / "found").n_nonzero_coefs_ == 2
    line = refused("fit", "world.npz", "-m", 40, "-k", "many", "-o", "other")
    assert "n_nonzero_coefs: found 'many'" in line
    assert "'auto'" in line


# ------------------------------------------------------------------ help


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["fit", "transform", "generate", "score", "report", "info", "sample:patches"]),
        (["fit"], ["--n-components", "-m", "-k", "--model", "--preprocess", "--roll-off",
                   "--recipe", "--init", "--seed", "--device", "--key", "--patch-size",
                   "--n-patches", "--force", "--quiet", "--output", "shoal fit sample:patches"]),
        (["transform"], ["--output", "--method", "--key", "--force", "load_npz"]),
        (["generate"], ["--n-features", "--atoms", "--sparsity", "-k", "--samples", "--noise",
                        "--low", "--high", "--atoms-from", "--power", "--rounding", "--supports",
                        "--blocks", "--weights", "--values", "--seed", "--force"]),
        (["score"], ["--json", "--key"]),
        (["check"], ["--dictionary", "--delta", "--samples", "--atoms-from", "--json"]),
        (["reproduce"], ["--output", "--scale", "--set", "--list", "--force", "all"]),
        (["report"], ["RUN"]),
        (["info"], ["RUN"]),
    ],
)  # fmt: skip
def test_help_names_every_option(command: list[str], words: list[str]) -> None:
    result = shoal_(*command, "--help", COLUMNS="200")
    assert result.exit_code == 0
    for word in words:
        assert word in result.stdout


def test_the_help_of_fit_parts_the_two_kinds_of_model() -> None:
    told = done("fit", "--help", COLUMNS="200").stdout
    active, penalised = told.index("k atoms are active"), told.index("Sparse by a penalty")
    for option in ("--n-nonzero-coefs", "--model", "--recipe", "--init"):
        assert active < told.index(option) < penalised
    for option in ("--penalty", "--strength", "--weight-length", "--decoder-bias"):
        assert penalised < told.rindex(f"{option} ")


def test_what_commands_share_says_the_same_in_each() -> None:
    told = {
        name: {option.name: option for option in command.params}
        for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
    }
    for group, commands in (
        (Laws, ("generate", "check", "landscape")),
        (Sizes, ("generate", "check", "landscape")),
        (Opening, ("fit", "sweep", "transform", "score", "landscape")),
    ):
        first, *others = ([told[each][name] for name in group._fields] for each in commands)
        for other in others:
            for one, same in zip(first, other, strict=True):
                assert (one.opts, one.help, one.default) == (same.opts, same.help, same.default)


def test_version() -> None:
    assert done("--version").stdout == f"shoal {shoal.__version__}\n"


def test_no_command_shows_help() -> None:
    assert "transform" in shoal_().output


# ------------------------------------------------------------------ mistakes


def data_file(name: str, value: Any) -> Callable[[], str]:
    def write() -> str:
        if name.endswith(".npy"):
            np.save(name, value)
        else:
            np.savez(name, **value)
        return name

    return write


def cut(name: str) -> Callable[[], str]:
    def write() -> str:
        data_file(
            "whole" + name, {"data": np.ones((90, 4))} if name == ".npz" else np.ones((90, 4))
        )()
        content = Path("whole" + name).read_bytes()
        Path("cut" + name).write_bytes(content[: len(content) * 2 // 3])
        return "cut" + name

    return write


def text(name: str) -> Callable[[], str]:
    def write() -> str:
        Path(name).write_text("1,2\n3,4\n")
        return name

    return write


def spoiled(value: float) -> np.ndarray:
    data = np.ones((90, 4))
    data[7, 2] = value
    return data


PLANTED = {"data": np.ones((90, 4)), "dictionary": np.eye(4), "codes": np.ones((90, 4))}
BAD_SOURCES: dict[str, tuple[Callable[[], str], str]] = {
    "NaN": (data_file("x.npy", spoiled(np.nan)), "source: found nan at row 7, column 2 of x.npy"),
    "inf": (data_file("x.npy", spoiled(np.inf)), "source: found inf at row 7, column 2 of x.npy"),
    "NaN in npz": (data_file("x.npz", {"data": spoiled(np.nan)}), "source: found nan at row 7"),
    "1-d": (data_file("x.npy", np.ones(9)), "source: found x.npy of shape (9,)"),
    "no rows": (data_file("x.npy", np.ones((0, 4))), "source: found x.npy with 0 rows"),
    "text in npy": (data_file("x.npy", np.array([["a"]])), "source: found x.npy of dtype <U1"),
    "missing": (lambda: "missing.npy", "source: found no file at 'missing.npy'"),
    "truncated npy": (cut(".npy"), "source: found cut.npy cut off at"),
    "truncated npz": (cut(".npz"), "source: found cut.npz, which can't be read"),
    "text as npy": (text("x.npy"), "source: found x.npy, which starts"),
    "text as npz": (text("x.npz"), "source: found x.npz, which starts"),
    "xls": (text("x.xls"), "source: found the ending '.xls'"),
    "empty file": (lambda: (Path("x.npy").touch(), "x.npy")[1], "which is empty"),
    "unknown sample": (lambda: "sample:cats", "sample:cats"),
    "two arrays": (data_file("x.npz", {"a": np.eye(4), "b": np.eye(4)}), "x.npz that holds"),
    "other dictionary": (
        data_file("x.npz", PLANTED | {"dictionary": np.eye(5)}),
        "source: found dictionary of shape (5, 5) in x.npz",
    ),
    "other codes": (
        data_file("x.npz", PLANTED | {"codes": np.ones((89, 4))}),
        "source: found codes of shape (89, 4) in x.npz",
    ),
    "an empty folder": (lambda: (Path("d").mkdir(), "d")[1], "source: found a folder without"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SOURCES)
def test_a_bad_source_is_one_line(here: Path, case: str) -> None:
    make, message = BAD_SOURCES[case]
    source = make()
    before = names(here)
    assert message in refused("fit", source, "-m", 2, "-k", 1, "-o", "run")
    assert names(here) == before


@pytest.mark.parametrize("case", BAD_SOURCES)
@pytest.mark.parametrize("command", ["transform", "score"])
def test_a_bad_source_is_one_line_to_a_run_as_well(
    shared: Path, here: Path, case: str, command: str
) -> None:
    make, message = BAD_SOURCES[case]
    source = make()
    output = ["-o", "codes.npz"] if command == "transform" else []
    assert message in refused(command, shared / "run", source, *output)
    assert not (here / "codes.npz").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-k 25 -m 24", "n_nonzero_coefs: found 25"),
        ("-k 0", "n_nonzero_coefs: found 0"),
        ("-m 0", "n_components: found 0"),
        ("-m -5", "n_components: found -5"),
        ("-m 2001", "n_components: found 2001 atoms for n_samples=2000"),
        ("-m many", "--n-components"),
        ("--model dense", "--model"),
        ("--model mixture -k 2", "n_nonzero_coefs: found 2"),
        ("--preprocess pca", "--preprocess"),
        ("--roll-off 0.5", "roll_off: found 0.5; needed --preprocess whiten"),
        ("--roll-off 0.5 --preprocess scale", "roll_off: found 0.5"),
        ("--roll-off 1.5 --preprocess whiten", "roll_off: found 1.5"),
        ("--recipe fast", "recipe: found 'fast'"),
        ("--recipe nguyen2019-mixture-relu", "model: found 'sparse'"),
        ("--init kmeans", "init: found 'kmeans'"),
        ("--seed -1", "seed: found -1"),
        ("--seed 4294967296", "seed: found 4294967296"),
        ("--device abacus", "device: found 'abacus'"),
        ("--device meta", "device: found 'meta'"),
        ("--key nothing", "key: found 'nothing'"),
        ("--patch-size 8", "patch_size: found 8"),
        ("--depth 3", "--depth"),
        ("--seed", "--seed"),
    ],
)
def test_a_bad_option_of_fit_is_one_line(
    shared: Path, here: Path, words: str, message: str
) -> None:
    assert message in refused("fit", shared / "planted.npz", *words.split(), "-o", "run")
    assert names(here) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sparse -n 0 -o x.npz", "n_features: found 0"),
        ("sparse -m 0 -o x.npz", "atoms: found 0"),
        ("sparse -k 0 -o x.npz", "sparsity: found 0"),
        ("sparse -k 129 -o x.npz", "sparsity: found 129"),
        ("mixture -k 2 -o x.npz", "sparsity: found 2"),
        ("sparse --samples 0 -o x.npz", "samples: found 0"),
        ("sparse --noise -1 -o x.npz", "noise: found -1"),
        ("sparse --noise nan -o x.npz", "noise: found nan"),
        ("sparse --low 3 -o x.npz", "low: found 3"),
        ("sparse --seed -1 -o x.npz", "seed: found -1"),
        ("sparse -o x.csv", "output: found x.csv; needed a name that ends in .npz or"),
        ("sparse", "--output"),
        ("dense -o x.npz", "dense"),
    ],
)
def test_a_bad_option_of_generate_is_one_line(here: Path, words: str, message: str) -> None:
    assert message in refused("generate", *words.split())
    assert names(here) == []


def test_a_mistyped_command_is_one_line() -> None:
    assert "No such command 'fitt'" in refused("fitt")


def test_a_missing_argument_is_one_line() -> None:
    line = refused("info")
    assert "RUN" in line
    assert "info --help" in line


@pytest.mark.parametrize("command", ["transform", "score", "report", "info"])
@pytest.mark.parametrize("case", ["missing", "a file", "an empty folder", "damaged"])
def test_a_bad_run_is_one_line(shared: Path, here: Path, command: str, case: str) -> None:
    message = {"missing": "found nothing", "a file": "found a file"}.get(case, "config.json")
    if case == "a file":
        Path("run").write_text("x")
    elif case != "missing":
        Path("run").mkdir()
        if case == "damaged":
            Path("run/config.json").write_text("{")
    more = {"transform": [shared / "planted.npz", "-o", "c.npz"], "score": [shared / "planted.npz"]}
    line = refused(command, "run", *more.get(command, []))
    assert line.startswith("error: run")
    assert message in line
    assert not Path("c.npz").exists()


def test_data_of_other_features_is_one_line(shared: Path, here: Path) -> None:
    np.save("x.npy", np.ones((9, 5)))
    run = shared / "run"
    assert "5 features; needed 16 features" in refused("score", run, "x.npy")
    assert "5 features; needed 16 features" in refused("transform", run, "x.npy", "-o", "c.npz")
    assert names(here) == ["x.npy"]


def test_an_existing_output_is_refused_before_work_unless_forced(
    shared: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted, run = shared / "planted.npz", shared / "run"
    Path("run").mkdir()
    Path("run/config.json").write_text("mine")
    Path("x.npz").write_text("mine")
    for words in (
        ("fit", planted, "-m", 24, "-k", 2, "-o", "run"),
        ("transform", run, planted, "-o", "x.npz"),
        ("generate", "sparse", "--samples", 20, "-o", "x.npz"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr("shoal.data.open_source", None)  # no work
            patch.setattr("shoal.generative.random_dictionary", None)
            assert "exists already; needed a new name, or --force" in refused(*words)
        assert Path("run/config.json").read_text() == "mine"
        assert Path("x.npz").read_text() == "mine"
    done("fit", planted, "-m", 24, "-k", 2, "-o", "run", "--force", "-q")
    assert names(here / "run") == FILES
    done("generate", "sparse", "--samples", 20, "-o", "x.npz", "--force", "-q")
    assert np.load("x.npz")["data"].shape == (20, 64)
    done("transform", run, planted, "-o", "x.npz", "--force", "-q")
    assert sparse.load_npz("x.npz").shape == (2000, 24)
    assert names(here) == ["run", "x.npz"]


@pytest.mark.parametrize("output", [".", "..", "/"])
def test_force_never_moves_a_folder_without_a_name(shared: Path, here: Path, output: str) -> None:
    assert "no name for a result" in refused("fit", shared / "planted.npz", "-o", output, "--force")


def test_an_output_that_cannot_be_written_is_one_line(shared: Path, here: Path) -> None:
    Path("file").write_text("x")
    for words in (
        ("fit", shared / "planted.npz", "-o", "file/run"),
        ("transform", shared / "run", shared / "planted.npz", "-o", "file/c.npz"),
        ("generate", "sparse", "-o", "file/x.npz"),
    ):
        assert "file/" in refused(*words)
    assert names(here) == ["file"]


def test_a_disk_that_fills_up_is_one_line(
    shared: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    Path("temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", "temporary")
    monkeypatch.setattr("shoal.files._sync", full)
    for words, name in (
        (("fit", shared / "planted.npz", "-m", 24, "-k", 2), "run"),
        (("transform", shared / "run", shared / "planted.npz"), "c.npz"),
        (("generate", "sparse", "--samples", 20), "x.npz"),
    ):
        line = refused(*words, "-o", name, "-q", code=1)  # failed; the input was good
        assert line.startswith(f"error: {name}: can't be written (No space left on device)")
    assert names(here) == ["temporary"]
    assert names(here / "temporary") == []


def test_what_cannot_be_written_where_it_should_be_is_kept_elsewhere(
    shared: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shoal.files._sync

    def full(path: Path) -> None:
        if "temporary" not in str(path):
            raise OSError(28, "No space left on device")
        real(path)

    Path("temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", "temporary")
    monkeypatch.setattr("shoal.files._sync", full)
    for words, name in (
        (("fit", shared / "planted.npz", "-m", 24, "-k", 2), "run"),
        (("transform", shared / "run", shared / "planted.npz"), "c.npz"),
        (("reproduce", "rangamani2017/table1", "--scale", "smoke", "--set", "h=64"), "table"),
    ):
        line = refused(*words, "-o", name, "-q", code=1)
        (kept,) = Path("temporary").glob(f"*/{name}")
        assert line.startswith(f"error: {name}: can't be written (No space left on device)")
        assert line.endswith(f"what was to be there is kept as {kept}")
        assert names(kept.parent) == [name]
    assert names(here) == ["temporary"]
    shoal.load_run(next(Path("temporary").glob("*/run")))
    assert sparse.load_npz(next(Path("temporary").glob("*/c.npz"))).shape == (2000, 24)


def test_a_missing_extra_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("x.parquet").write_bytes(b"PAR1")
    real = importlib.import_module

    def without(name: str, *more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *more)

    monkeypatch.setattr(importlib, "import_module", without)
    line = refused("fit", "x.parquet", "-o", "run")
    assert "pyarrow isn't installed" in line
    assert 'pip install "shoal[parquet]"' in line


def test_out_of_memory_is_one_line(
    shared: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr("shoal.cli.fitting.follow", fail)
    line = refused("fit", shared / "planted.npz", "-o", "run", code=1)
    assert "out of memory (Unable to allocate 9 TiB)" in line
    assert names(here) == []


def test_an_interrupt_is_one_line(
    shared: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shoal.runs.report_bytes", stop)
    result = shoal_("fit", shared / "planted.npz", "-m", 24, "-k", 2, "-o", "run", "-q")
    assert result.exit_code == 130
    assert result.stderr == "interrupted: no unfinished result was left behind\n"
    assert names(here) == []


# ------------------------------------------------------------------ as a process


def process(code: str, *words: Any, **more: Any) -> subprocess.Popen[str]:
    """`shoal` with `words`, after `code`, in a process of its own."""
    program = f"{textwrap.dedent(code)}\nfrom shoal.cli import main\nmain()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"},
        **more,
    )


# Says so once the fit has taken ten steps, or at the last file, and then has long to go.
DURING_THE_FIT = """
import itertools, time
import shoal.cli.fitting
def follow(steps, *, quiet):
    for _ in itertools.islice(steps, 10):
        pass
    print("now", flush=True)
    time.sleep(60)
shoal.cli.fitting.follow = follow
"""
DURING_THE_WRITING = """
import time
import shoal.runs
def write(run):
    (run.folder / "report.html").write_text("half")
    print("now", flush=True)
    time.sleep(60)
shoal.runs.report_bytes = write
"""


@pytest.mark.parametrize(
    ("when", "number", "existed"),
    [
        (DURING_THE_FIT, signal.SIGINT, False),
        (DURING_THE_FIT, signal.SIGTERM, True),
        (DURING_THE_WRITING, signal.SIGINT, True),
        (DURING_THE_WRITING, signal.SIGTERM, False),
    ],
    ids=["fit-SIGINT", "fit-SIGTERM", "writing-SIGINT", "writing-SIGTERM"],
)
def test_a_signal_half_way_leaves_nothing_unfinished(
    shared: Path, here: Path, when: str, number: signal.Signals, existed: bool
) -> None:
    if existed:
        Path("run").mkdir()
        Path("run/config.json").write_text("old")
    words = ["fit", shared / "planted.npz", "-m", 24, "-k", 2, "-o", "run", "--force", "-q"]
    with process(when, *words) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "now\n"
            if when is DURING_THE_WRITING:
                assert any(name.endswith(".shoal.partial") for name in os.listdir())
            running.send_signal(number)
            _, errors = running.communicate(timeout=30)
        finally:
            running.kill()
    assert running.returncode == 128 + number
    assert errors == "interrupted: no unfinished result was left behind\n"
    assert names(here) == (["run"] if existed else [])
    assert not existed or names(here / "run") == ["config.json"]


def test_an_interrupted_sweep_says_that_it_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save("x.npy", np.random.default_rng(0).normal(size=(60, 4)))
    words = ["sweep", "x.npy", "-o", "s", "--strength", "0:1:3", "--penalty", "dae", "--epochs", 1,
             "--jobs", 1]  # fmt: skip

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shoal.sweeps.result.write_result", stop)
        result = shoal_(*words, "-q")
    assert result.exit_code == 130
    assert result.stderr == (
        "interrupted: what is finished is kept; the same command goes on from there\n"
    )
    assert names(here) == [".s.unfinished.jsonl", "x.npy"]
    done(*words, "-q")
    assert names(here) == ["s", "x.npy"]


def test_two_fits_into_one_new_run(shared: Path, here: Path) -> None:
    """The second hears of the first before its own fit."""
    words = ["fit", shared / "planted.npz", "-m", 24, "-k", 2, "-o", "r/run", "-q"]
    with process(DURING_THE_FIT, *words) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "now\n"
            for more in ((), ("--force",)):
                line = refused(*words, *more)
                assert f"r/run: process {first.pid} on " in line
                assert "is writing it; needed a new name, or to wait" in line
        finally:
            first.kill()
    assert names(here / "r") == [".run.shoal.lock"]
    done(*words)  # the lock has ended with its process
    assert names(here / "r") == ["run"]


# ------------------------------------------------------------------ what reaches the terminal


HOSTILE = "\x1b[2J\x1b]0;mine\x07\x9b2J\u202e\x7f\r\n"


def is_plain(result: Any) -> bool:
    text = result.stdout + result.stderr
    return all(each.isprintable() or each == "\n" for each in text)


def test_no_control_character_reaches_the_terminal(here: Path) -> None:
    name = f"x{HOSTILE}.npy"
    np.save(name, np.random.default_rng(0).normal(size=(60, 4)))
    run = f"r{HOSTILE}"
    for words in (
        ["fit", name, "-m", 5, "-k", 2, "-o", run],
        ["fit", name, "-m", 5, "-k", 2, "-o", run],  # exists already
        ["info", run],
        ["info", run, "--verify"],
        ["report", run],
        ["score", run, name],
        ["score", run, name, "--json"],
        ["transform", run, name, "-o", f"{HOSTILE}.npz"],
        ["generate", "sparse", "--samples", 20, "-o", f"g{HOSTILE}.npz"],
        ["info", f"nothing{HOSTILE}"],
        ["fit", f"nothing{HOSTILE}.npy", "-o", "x"],
        ["fit", name, "-o", "x", "--recipe", HOSTILE],
        ["fit", name, "-o", "x", "--model", HOSTILE],
        ["fit", name, f"--{HOSTILE}"],
        [f"--{HOSTILE}"],
        [HOSTILE],
    ):
        result = shoal_(*words)
        assert is_plain(result), (words, result.output)
        assert result.output
        assert result.exit_code in (0, 2), result.output
        assert result.exit_code == 0 or len(result.stderr.splitlines()) == 1
    path = Path(run) / "config.json"
    config = json.loads(path.read_text())
    config["created"] = config["preprocessing"]["kind"] = HOSTILE
    path.write_text(json.dumps(config))
    of_format_1(Path(run))
    for words in (
        ["info", run],
        ["info", run, "--verify"],
        ["transform", run, name, "-o", "y.npz"],
    ):
        assert is_plain(shoal_(*words))


def test_all_output_goes_by_the_screen() -> None:
    modules = [
        each for each in Path(shoal.cli.__file__).parent.glob("*.py") if each.stem != "screen"
    ]
    assert len(modules) > 5
    nodes = [node for each in modules for node in ast.walk(ast.parse(each.read_text()))]
    named = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
    called = {node.id for node in nodes if isinstance(node, ast.Name)}
    assert not {each for each in named if each.startswith(("typer.echo", "typer.secho", "sys.std"))}
    assert not {"print", "Console"} & called


def test_a_damaged_run_is_told_file_by_file(shared: Path, here: Path) -> None:
    shutil.copytree(shared / "run", "run")
    assert done("info", "run", "--verify").stdout.count("sound") == 5
    data = bytearray(Path("run/dictionary.safetensors").read_bytes())
    data[-3] ^= 1
    Path("run/dictionary.safetensors").write_bytes(data)
    result = shoal_("info", "run", "--verify", COLUMNS="200")
    assert result.exit_code == 2
    assert result.stdout.count("sound") == 4
    assert result.stdout.count("DAMAGED") == 1
    assert "error: run: damaged: dictionary.safetensors; needed" in result.stderr
    assert "dictionary.safetensors: does not match its checksum" in refused("info", "run")


def test_exit_codes_and_streams_of_the_real_command(shared: Path, here: Path) -> None:
    with process("", "score", shared / "run", shared / "planted.npz", "--json") as good:
        output, errors = good.communicate(timeout=60)
    assert good.returncode == 0
    assert json.loads(output)["recovery"]["recovered"]["0.95"] == 1
    assert errors == ""
    with process("", "fit", "missing.npy", "-o", "run") as bad:
        output, errors = bad.communicate(timeout=60)
    assert bad.returncode == 2
    assert output == ""
    assert errors.startswith("error: source: found no file at 'missing.npy'")
    assert errors.count("\n") == 1
    assert names(here) == []


def test_the_run_remembers_how_it_was_made(shared: Path, here: Path) -> None:
    words = ["fit", str(shared / "planted.npz"), "-m", "24", "-k", "2", "-o", "my run", "-q"]
    with process("", *words) as running:
        running.communicate(timeout=60)
    assert running.returncode == 0
    config = json.loads((here / "my run" / "config.json").read_text())
    assert config["command"].startswith("shoal fit ")
    assert config["command"].endswith("-o 'my run' -q")


def test_generate_writes_the_law_of_the_benchmark(here: Path) -> None:
    done("generate", "synth-1k", "--samples", 300, "--seed", 1, "-o", "features.npz")
    with np.load(here / "features.npz", allow_pickle=False) as file:
        assert file["data"].shape == (300, 512)
        assert file["dictionary"].shape == (1024, 512)
        parts = (file["codes_values"], file["codes_units"], file["codes_starts"])
        codes = sparse.csr_array(parts, shape=(300, 1024))
        assert np.allclose(codes @ file["dictionary"] + file["offset"], file["data"], atol=1e-4)
    assert shoal.open_source(here / "features.npz").truth is not None


def test_generate_refuses_sizes_for_a_world_that_has_its_own(here: Path) -> None:
    said = refused("generate", "synth-1k", "-m", 128, "-o", "features.npz")
    assert "atoms: found 128; needed to be left out: synth-1k has sizes" in said
