"""shoal check, generate and landscape: weights from files and runs, laws as they are typed."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from commands import done, refused
from shoal import theory
from shoal.data import Preprocessing
from shoal.estimators import evaluation
from shoal.generative import SparseCoding, perturb, random_dictionary

SIZES = ("-n", "16", "-m", "16", "-k", "2", "--samples", "800")
DEFINITION_2 = "Nguyen, Wong, Hegde 2018, Definition 2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """planted.npz, its atoms a little moved in files of every kind, and runs by preprocessing."""
    folder = tmp_path_factory.mktemp("check")
    done("generate", "sparse", *SIZES, "-o", folder / "planted.npz")
    with np.load(folder / "planted.npz") as file:
        atoms = perturb(file["dictionary"], 0.1, 0)[np.random.default_rng(0).permutation(16)]
        np.save(folder / "plain.npy", file["data"])
    np.save(folder / "atoms.npy", atoms)
    np.save(folder / "long.npy", 3 * atoms.astype(np.float32))
    np.save(folder / "dead.npy", np.vstack([atoms[:-1], np.zeros(16)]))
    np.savez(folder / "atoms.npz", codes=np.eye(3), dictionary=atoms)
    np.savez(folder / "other.npz", first=atoms, second=2 * atoms)
    save_file({"decoder": atoms}, folder / "atoms.safetensors")
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 no zip")
    for kind in ("scale", "whiten", "samples"):
        words = ["--preprocess", kind, *(["--roll-off", "1"] if kind == "whiten" else [])]
        fit = ["fit", folder / "planted.npz", "-m", 16, "-k", 2, *words, "-q"]
        done(*fit, "-o", folder / kind)
    return folder


def asked(*words):
    record = json.loads(done("check", *words, "--samples", "80", "--json").stdout)
    return record, {each["source"]: each for each in record["assertions"]}


@pytest.mark.parametrize(
    "words",
    [["atoms.npy"], ["atoms.npz"], ["atoms.safetensors"], ["other.npz", "--key", "second"]],
    ids=lambda words: words[0],
)
def test_a_dictionary_is_a_file(folder, words):
    record, found = asked(folder / "planted.npz", "--dictionary", folder / words[0], *words[1:])
    assert found[DEFINITION_2]["hypotheses"][0]["value"] == pytest.approx(0.1, rel=1e-5)
    assert record["world"]["truth"] is True
    assert bool(record["notes"]) == ("--key" in words)  # its atoms are twice as long


def test_atoms_that_are_no_unit_vectors_are_made_so_and_that_is_said(folder):
    record, found = asked(folder / "planted.npz", "--dictionary", folder / "long.npy")
    assert found[DEFINITION_2]["hypotheses"][0]["value"] == pytest.approx(0.1, rel=1e-4)
    assert record["notes"] == [
        "Atoms of long.npy are 3 to 3 long: each is divided by its length, as theorems ask of "
        "unit atoms."
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["planted.npz", "--dictionary", "nowhere.npy"], "dictionary: found no file"),
        (["planted.npz", "--dictionary", "planted.txt"], "planted.txt: found nothing"),
        (["planted.npz", "--dictionary", "broken.npz"], "dictionary: found broken.npz"),
        (["planted.npz", "--dictionary", "dead.npy"], "dictionary: found atom 15 of length 0"),
        (["planted.npz", "--dictionary", "other.npz"], "(--key) that names one of them"),
        (["planted.npz", "--dictionary", "other.npz", "--key", "x"], "key: found 'x'"),
        (["planted.npz", "--dictionary", "atoms.npy", "--key", "x"], "key: found 'x'"),
        (["planted.npz", "--dictionary", "scale", "--key", "x"], "key: found 'x'"),
        (["planted.npz", "--key", "x"], "key: found 'x'; needed --dictionary FILE"),
        (["planted.npz", "--dictionary", "samples"], "preprocessing 'samples'"),
        (["plain.npy", "--dictionary", "atoms.npy"], "sparsity: found nothing; needed -k"),
        (["planted.npz", "--power", "0.1"], "power: found 0.1; needed to be left out"),
        (["planted.npz", "-k", "2"], "sparsity: found 2; needed to be left out"),
        (["sparse", "-k", "2", "--power", "0.1"], "power: found sparsity as well"),
        (["sparse", "--dictionary", "atoms.npy"], "dictionary: found shape (16, 16)"),
    ],
)
def test_what_check_refuses(folder, monkeypatch, words, text):
    monkeypatch.chdir(folder)
    assert text in refused("check", *words)


@pytest.mark.parametrize("kind", ["scale", "whiten"])
def test_a_run_with_preprocessing_is_asked_in_its_own_space(folder, kind):
    record, found = asked(folder / "planted.npz", "--dictionary", folder / kind)
    assert f"preprocessing '{kind}'" in record["notes"][0]
    # All atoms are recovered: in the raw space a whitened one would be far from each.
    assert found[DEFINITION_2]["hypotheses"][0]["value"] < 0.1
    assert any("long there" in note for note in record["notes"])


def test_without_a_truth_any_preprocessing_and_any_file_will_do(folder):
    record, found = asked(folder / "plain.npy", "--dictionary", folder / "samples")
    assert record["world"]["truth"] is False
    assert found[DEFINITION_2]["hypotheses"][0]["value"] < 1e-4
    record, _ = asked(folder / "plain.npy", "--dictionary", folder / "atoms.npy", "-k", "2")
    assert (record["world"]["k"], record["world"]["truth"]) == (2, False)
    assert 0 < record["world"]["noise"] < 0.3
    assert "isn't known" in record["notes"][0]


def test_the_world_behind_a_linear_map_has_the_moments_of_the_mapped_data():
    world = SparseCoding(random_dictionary(12, 6, random_state=0), 2, low=1.0, high=2.0, noise=0.1)
    data = world.sample(4000, 0).data
    fitted = Preprocessing("whiten", roll_off=None).fit(data)
    there = theory.preprocessed_world(world, fitted)
    mapped = fitted.apply(data)
    assert np.linalg.norm(there.world.dictionary, axis=1) == pytest.approx(1)
    # Exact but for the lengths' mixing and the noise's stretching, neither of which is large here.
    np.testing.assert_allclose(there.world.second_moment(), mapped.T @ mapped / 4000, atol=0.2)
    power = np.trace(there.world.second_moment())
    assert power == pytest.approx(np.mean(np.sum(mapped**2, axis=1)), rel=0.05)
    there.world.values.check()
    assert there.lengths.min() < there.lengths.max()
    plain = theory.preprocessed_world(world, Preprocessing("none").fit(data))
    assert plain.world is world


# ------------------------------------------------------------------ laws on the command line


@pytest.mark.parametrize(
    ("words", "support", "values"),
    [
        (
            ["nonnegative", "--supports", "0,1,2;3,4", "--weights", "3,1"],
            {
                "kind": "DiscreteSupport",
                "supports": [[0, 1, 2], [3, 4]],
                "probabilities": [0.75, 0.25],
            },
            "Uniform",
        ),
        (
            ["sparse", "--power", "0.5", "--rounding", "floor", "--values", "gaussian"],
            {"kind": "UniformSupport", "k": 3},
            "Gaussian",
        ),
        (
            ["sparse", "--power", "0.5", "--values", "rademacher"],
            {"kind": "UniformSupport", "k": 4},
            "Rademacher",
        ),
    ],
)
def test_laws_are_drawn_from_and_kept_in_the_file(tmp_path, words, support, values):
    out = tmp_path / "x.npz"
    done("generate", *words, "-n", 8, "-m", 12, "--samples", 200, "-o", out)
    with np.load(out) as file:
        laws, codes = json.loads(str(file["laws"])), file["codes"]
    assert laws["support"] == support
    assert laws["values"]["kind"] == values
    if "supports" in support:
        rows = {tuple(np.flatnonzero(row)) for row in codes}
        assert rows == {(0, 1, 2), (3, 4)}
    record, _ = asked(out)
    named, _ = asked(*words, "-n", "8", "-m", "12")
    for key in ("k", "kappa1", "kappa2", "p_min", "p_max", "expected_k"):
        assert record["world"][key] == named["world"][key]


def test_blocks_and_files_of_laws(tmp_path):
    (tmp_path / "weights.txt").write_text("1\n1\n2\n")
    words = ["nonnegative", "-n", "8", "-m", "12", "--blocks", "4", "--values", "constant"]
    out = tmp_path / "x.npz"
    done("generate", *words, "--weights", tmp_path / "weights.txt", "--samples", 90, "-o", out)
    record, found = asked(out)
    assert (record["world"]["k"], record["world"]["p_min"], record["world"]["p_max"]) == (
        4,
        0.25,
        0.5,
    )
    lemma = found["Rangamani et al. 2017, Lemma 5.2"]
    uneven = [each for each in lemma["hypotheses"] if "the same for all units" in each["claim"]]
    assert not uneven[0]["holds"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("sparse --supports 0,99", "supports: found unit 99"),
        ("sparse --supports 0,1 -k 2", "supports: found sparsity as well"),
        ("sparse --weights 1,2", "weights: found supports of one size"),
        ("sparse --blocks 5", "blocks: found 5"),
        ("nonnegative --values rademacher", "values: found 'rademacher'"),
        ("mixture --low 2", "low: found 2"),
        ("sparse --rounding floor", "rounding: found 'floor'; needed --power"),
        ("sparse --values normal", "normal"),
        ("sparse --atoms-from random --dictionary low-coherence", "dictionary: found low-coh"),
    ],
)
def test_laws_that_cannot_be_are_one_line(tmp_path, monkeypatch, words, text):
    monkeypatch.chdir(tmp_path)
    assert text in refused("generate", *words.split(), "-m", "12", "-n", "8", "-o", "x.npz")
    assert list(tmp_path.iterdir()) == []


def test_the_old_name_of_atoms_from_is_taken_still(tmp_path):
    for name in ("--dictionary", "--atoms-from"):
        done("generate", "sparse", "-n", 8, "-m", 16, "--samples", 20, name, "orthonormal-union",
             "-o", tmp_path / f"{name[2:]}.npz")  # fmt: skip
    old, new = (tmp_path / f"{name}.npz" for name in ("dictionary", "atoms-from"))
    assert old.read_bytes() == new.read_bytes()
    assert "--dictionary" not in done("generate", "--help", COLUMNS="200").stdout


# ------------------------------------------------------------------ landscape


def test_a_landscape_of_a_run_is_printed_drawn_and_told_as_json(folder, tmp_path):
    words = ["landscape", folder / "scale", folder / "planted.npz", "--points", 5]
    text = done(*words, "-o", tmp_path / "x.png", COLUMNS="200").stdout
    for each in ("random", "swap", "TopK", "over that of W = 0", "x.png"):
        assert each in text
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert "exists already" in refused(*words, "-o", tmp_path / "x.png")
    done(*words, "-o", tmp_path / "x.html")
    assert "<svg" in (tmp_path / "x.html").read_text()
    record = json.loads(done(*words, "--json", "-o", tmp_path / "x.json").stdout)
    assert record == json.loads((tmp_path / "x.json").read_text())
    line = record["lines"][0]
    assert line["loss"].index(min(line["loss"])) == 2, "the run lies in a well"
    assert (record["n_samples"], record["n_atoms"]) == (500, 16)


@pytest.mark.parametrize(
    ("words", "activation", "bias"),
    [
        (["nonnegative"], "ReLU", "Theorem 3.1"),
        (["nonnegative", "--bias", "-0.3"], "ReLU", "-0.3"),
        (["nonnegative", "--activation", "sigmoid"], "Sigmoid", "0"),
        (["sparse"], "TopK(k=2, signed=True)", "0"),
        (
            ["sparse", "--activation", "threshold"],
            "HardThreshold(threshold=0.5, signed=True)",
            "0",
        ),
        (["mixture"], "ReLU", "Theorem 3.1"),
    ],
)
def test_a_landscape_of_a_world_names_its_bias(words, activation, bias):
    sizes = ["-n", 8, "-m", 8, *([] if words[0] == "mixture" else ["-k", 2])]
    found = done("landscape", *words, *sizes, "--points", 3, "--samples", 50, "--json").stdout
    record = json.loads(found)
    assert record["activation"] == activation
    assert bias in record["bias"]


def test_a_landscape_of_a_file_is_of_its_truth(folder):
    record = json.loads(done("landscape", folder / "planted.npz", "--points", 3, "--json").stdout)
    assert record["n_atoms"] == 16
    assert record["loss"] < record["zero"] / 2


def test_a_flat_place_is_told():
    text = done(
        "landscape", "nonnegative", "-n", 8, "-m", 16, "--bias", "-50", "--points", 3
    ).stdout
    assert "wake no unit" in text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["scale"], "SOURCE: found nothing"),
        (["scale", "planted.npz", "--bias", "-1"], "bias: found -1; needed to be left out"),
        (["scale", "planted.npz", "-k", "2"], "sparsity: found 2; needed to be left out"),
        (["sparse", "planted.npz"], "SOURCE: found planted.npz; needed to be left out"),
        (["plain.npy"], "WORLD: found plain.npy without a truth"),
        (["nowhere.npz"], "source: found no file"),
        (["planted.npz", "--power", "0.1"], "power: found 0.1; needed to be left out"),
        (["sparse", "--bias", "theorem"], "bias: found 'theorem'; needed a number"),
        (["nonnegative", "--bias", "large"], "bias: found 'large'; needed a finite number"),
        (["nonnegative", "--points", "1"], "points: found 1"),
        (["nonnegative", "-o", "x.svg"], "output: found x.svg; needed a name that ends in .png"),
        (["nonnegative", "--key", "x"], "key: found x; needed to be left out"),
    ],
)
def test_what_landscape_refuses(folder, monkeypatch, words, text):
    monkeypatch.chdir(folder)
    assert text in refused("landscape", *words)


def test_the_report_of_a_run_shows_the_loss_around_it(folder):
    config = json.loads((folder / "scale" / "config.json").read_text())
    record = config["landscape"]
    assert record["lines"][0]["name"] == "random"
    assert len(json.dumps(record)) < 8000
    page = (folder / "scale" / "report.html").read_text()
    assert "The loss around it" in page
    assert "bias" in page
    assert "landscape.lines" not in page, "not among the configuration's rows"


def test_the_picture_of_a_run_is_smaller_where_the_dictionary_is_large():
    assert evaluation._picture(16, 16) == {"n_samples": 48, "n_points": 13, "n_plane": 13}
    assert evaluation._picture(1024, 256)["n_samples"] < 48
    assert evaluation._picture(4096, 100_000) is None


def test_a_few_rows_that_hold_most_of_the_square_are_said(folder, tmp_path):
    rows = np.load(folder / "plain.npy")
    for name, times in (("even", 1.0), ("uneven", 40.0)):
        longer = rows.copy()
        longer[::50] *= times
        np.save(tmp_path / f"{name}.npy", longer)
        record, _ = asked(tmp_path / f"{name}.npy", "--dictionary", folder / "atoms.npy", "-k", "2")
        said = [note for note in record["notes"] if "of the square is in 5% of the rows" in note]
        assert len(said) == (times > 1)
