"""The files of docs/examples, each of which adds one part: fitted, saved, loaded, used."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import shoal
from shoal import papers
from shoal.data import open_source
from shoal.network import autoencoder
from shoal.network.activations import ACTIVATIONS
from shoal.parts import _forget, named, register
from shoal.training import Adam, Constant, Recipe

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
PARTS = {
    "activation": "soft-threshold",
    "penalty": "energy",
    "recipe": "plain-adam",
    "reader": "json-lines",
    "experiment": "own/chance",
}
DATA = np.random.default_rng(0).standard_normal((300, 12)) + 1.0


@pytest.fixture
def plugin():
    """Imports the example of a kind, and takes it back afterwards."""
    imported = []

    def load(kind):
        spec = importlib.util.spec_from_file_location(f"own_{kind}", EXAMPLES / f"{kind}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        imported.append(kind)
        return module

    yield load
    for kind in imported:
        _forget(kind, PARTS[kind])
        del sys.modules[f"own_{kind}"]


def test_each_is_a_whole_file_of_at_most_40_lines_that_the_page_shows():
    page = (EXAMPLES.parent / "architecture.md").read_text()
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(PARTS)
    for kind in PARTS:
        text = (EXAMPLES / f"{kind}.py").read_text()
        assert len(text.splitlines()) <= 40
        assert f"```python\n{text}```" in page, kind


def used(model, folder):
    shoal.save_run(model, folder, DATA)
    loaded = shoal.load_run(folder)
    codes = model.transform(DATA)
    np.testing.assert_array_equal(loaded.transform(DATA), codes)
    assert np.count_nonzero(codes) > 0
    assert loaded.recipe_ == model.recipe_
    return codes


@pytest.mark.filterwarnings("ignore:The mean of X")
@pytest.mark.filterwarnings("ignore:n_components=16")  # that some atoms are left out
@pytest.mark.filterwarnings("ignore:The mean of X")
def test_an_activation(plugin, tmp_path):
    plugin("activation")
    model = shoal.RegularizedAutoencoder(
        16, "l1", 0.1, activation="soft-threshold", n_epochs=2, random_state=0
    )
    codes = used(model.fit(DATA), tmp_path / "penalty")
    assert (codes == 0).any()
    assert (codes < 0).any()
    recipe = Recipe(ACTIVATIONS["soft-threshold"](0.2), Adam(Constant(0.01), tangent=True), 20, 64)
    other = shoal.DictionaryAutoencoder(16, 3, recipe=recipe, random_state=0)
    used(other.fit(DATA), tmp_path / "recipe")


def test_a_penalty(plugin, tmp_path):
    energy = plugin("penalty").Energy
    sizes = []
    for strength in (0.0, 1.0):
        model = shoal.RegularizedAutoencoder(16, "energy", strength, n_epochs=5, random_state=0)
        codes = used(model.fit(DATA), tmp_path / f"{strength}")
        sizes.append(float(np.square(codes).mean()))
        assert model.penalty_ == energy(strength)
    assert sizes[1] < 0.9 * sizes[0]


def test_the_penaltys_gradient_is_that_of_its_objective(plugin):
    penalty = plugin("penalty").Energy(0.3)
    relu = ACTIVATIONS["relu"]()
    rng = torch.Generator().manual_seed(0)
    atoms = torch.randn(5, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    data = torch.randn(20, 4, generator=rng, dtype=torch.float64)
    bias = torch.zeros(5, dtype=torch.float64)
    parameters = shoal.vocabulary.Parameters(atoms, bias)
    codes = autoencoder.encode(parameters, data, relu)
    loss = (data - codes @ atoms).square().sum() + 0.3 * codes.square().sum()
    (expected,) = torch.autograd.grad(loss / 20, atoms)
    with torch.no_grad():
        terms = penalty(parameters, data, relu)
        torch.testing.assert_close(terms.gradient(atoms), expected)
        torch.testing.assert_close(terms.loss + terms.penalty, loss / 20)


@pytest.mark.filterwarnings("ignore:The mean of X")
def test_a_recipe(plugin, tmp_path):
    plugin("recipe")
    model = shoal.DictionaryAutoencoder(16, 3, recipe="plain-adam", random_state=0).fit(DATA)
    used(model, tmp_path / "run")
    assert model.n_steps_ == 300


def test_a_recipe_has_to_be_one(plugin):
    plugin("recipe")
    _forget("recipe", "plain-adam")
    register("recipe", "plain-adam")(lambda *sizes: "fast")
    model = shoal.DictionaryAutoencoder(16, 3, recipe="plain-adam")
    with pytest.raises(shoal.ArgumentError, match=r"^recipe: found 'plain-adam', which makes str"):
        model.fit(DATA)


def test_a_reader(plugin, tmp_path):
    plugin("reader")
    plain, named_ = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    plain.write_text("".join(f"{row.tolist()}\n" for row in DATA))
    named_.write_text("".join(f'{{"x": {row.tolist()}, "id": 1}}\n' for row in DATA))
    for source in (open_source(plain), open_source(named_, field="x")):
        np.testing.assert_array_equal(next(source.batches(300)), DATA)
    model = shoal.RegularizedAutoencoder(4, "l1", n_epochs=1, random_state=0).fit(plain)
    np.testing.assert_array_equal(model.transform(plain), model.transform(DATA))
    named_.write_text("[1,2]\n[3]\n")
    with pytest.raises(shoal.SourceError, match=r"^source: found b.jsonl, which can't be read"):
        open_source(named_)


def test_an_experiment(plugin):
    plugin("experiment")
    assert papers.names()[-1] == "own/chance"
    assert [each.name for each in papers.select("own")] == ["own/chance"]
    result = papers.reproduce("own/chance", "smoke", seed=3)
    assert result["verdicts"][0]["holds"]
    assert [row[0] for row in result["numbers"]["rows"]] == [8, 32]


@pytest.mark.parametrize("name", ["all", "", "a//b", "../b", "nguyen2019/figure1"])
def test_experiments_that_are_refused(plugin, name):
    from dataclasses import replace

    own = replace(plugin("experiment").EXPERIMENT, name=name)
    with pytest.raises(shoal.ArgumentError, match=r"^name: found"):
        papers.register(own)
    assert named("experiment")["own/chance"] is not own


# --- on the command line -----------------------------------------------------------------------


def test_all_on_the_command_line(tmp_path):
    (tmp_path / "data.jsonl").write_text("".join(f"{row.tolist()}\n" for row in DATA))
    for kind in PARTS:
        text = (EXAMPLES / f"{kind}.py").read_text()
        (tmp_path / f"own_{kind}.py").write_text(text)
    plugins = [word for kind in PARTS for word in ("--plugin", f"own_{kind}")]
    code = "import sys\nfrom shoal.cli import app\nfor line in sys.stdin:\n"
    code += "    code = app([*sys.argv[1:], *line.split()], standalone_mode=False)\n"
    code += "    assert not code, line\n"
    lines = (
        "fit data.jsonl -m 16 --penalty energy --strength .1 --activation soft-threshold "
        "--epochs 2 -o one -q",
        "fit data.jsonl -m 16 -k 3 --recipe plain-adam -o two -q",
        "transform one data.jsonl -o one.npz",
        "transform two data.jsonl -o two.npz",
        "sweep data.jsonl --penalty energy --strength 0,1 -m 8 --epochs 1 --jobs 1 -o sweep -q",
        "reproduce --list",
        "reproduce own/chance --scale smoke --set seed=1 -o chance -q",
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *plugins],
        input="\n".join(lines),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr
    assert "own/chance" in done.stdout
    for name in ("one.npz", "two.npz", "chance/figure.png", "sweep/index.html"):
        assert (tmp_path / name).stat().st_size > 0
