"""Each room imports only from rooms above its own; the light ones stay light."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import shoal

SOURCE = Path(shoal.__file__).parent

WORDS = {"vocabulary", "parts"}
CORE = WORDS | {"generative", "data", "network", "training", "diagnosis"}
RUN = {"files", "run_folder"}

# From the words down to the command line: what each room does, and the rooms above it that it may
# import from; None is any above it. `shoal/__init__.py` is the door, which the command line alone
# stands behind. docs/architecture.md shows this table.
ROOMS: dict[str, tuple[str, set[str] | None]] = {
    "processes": ("what a fork takes from a process, and workers", set()),
    "signals": ("interrupts that leave what is whole", set()),
    "vocabulary": ("words: parameters, steps, errors, checks", set()),
    "parts": ("what registers itself, and is stored by its fields", {"vocabulary"}),
    "files": ("files and folders that appear whole or not at all", {"vocabulary"}),
    "run_folder": ("what a run's files are", {"vocabulary", "files"}),
    "generative": ("worlds whose dictionary is known", WORDS),
    "data": ("sources: readers, batches, preprocessing", WORDS),
    "network": ("the autoencoder, penalties, kernels: pure functions", WORDS | {"processes"}),
    "training": (
        "one descent, its state, recipes and checkpoints",
        WORDS | {"signals", "files", "generative", "data", "network"},
    ),
    "diagnosis": ("how good it is, in numbers", WORDS | {"generative", "network"}),
    "claims": ("what was found, needed, and whether it holds", set()),
    "theory": ("the papers' theorems in numbers", CORE | {"claims"}),
    "estimators": ("the scikit-learn face", (CORE | {"signals"}) - {"generative"}),
    "certificate": (
        "how far each atom can be trusted",
        (CORE | {"processes", "files", "claims", "theory", "estimators"}) - {"parts", "generative"},
    ),
    # Above the runs, which write one; it reads files, and knows nothing of what made them.
    "report": ("figures and pages from files alone", {"vocabulary"} | RUN),
    "runs": ("models to folders and back", CORE | RUN | {"estimators", "report"}),
    "plot": ("pictures of a model on axes", {"vocabulary", "diagnosis", "report"}),
    "language": (
        "a language model's activations to a store",
        {"vocabulary", "files", "signals", "data"},
    ),
    "tl": ("a dictionary of an AnnData, written into it", {"vocabulary", "data", "estimators"}),
    # Beside the runs, which are shoal's own; these are other packages' folders.
    "ecosystem": (
        "models to other packages' formats and back",
        CORE - {"generative", "diagnosis"} | {"files", "estimators"},
    ),
    "experiments": (
        "what an experiment is, runs and leaves behind",
        WORDS | {"files", "claims", "report"},
    ),
    "sweeps": (
        "a penalty's strengths, one by one",
        CORE | {"processes", "files", "claims", "report", "experiments"},
    ),
    "papers": (
        "the papers' tables and figures",
        CORE | {"claims", "theory", "estimators", "report", "experiments", "sweeps"},
    ),
    "shoal": ("the door: names that load when first used", None),
    "cli": ("the command line", None),
    "__main__": ("python -m shoal", {"cli"}),
}

# Rooms within rooms: the modules of their own room that they may import beside their own.
INNER = {
    "data.readers": {"access", "columns", "images", "joined"},
    "network.kernels": {"activations", "autoencoder", "codes", "pursuit"},
    "training.recipes": {
        "adaptation",
        "autoencoding",
        "constraints",
        "descent",
        "encoding",
        "initialization",
        "polish",
        "refinement",
        "revival",
        "rules",
        "schedules",
    },
    "cli.screen": set(),
    "cli.options": set(),
    "cli.progress": {"screen"},
    "cli.application": {"screen"},
}

# Kernels are called by the network alone; all others go through its functions.
KERNELS = "shoal.network.kernels"

# (importing module, imported module): the reason. None is wanted.
EXCEPTIONS: dict[tuple[str, str], str] = {}


def module_name(path, source=SOURCE):
    parts = path.relative_to(source.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(source=SOURCE):
    return {module_name(path, source): path for path in sorted(source.rglob("*.py"))}


def imports(name, path, known):
    """The modules of shoal that a module imports anywhere in its text, lazily or for types."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
                package = package[: len(package) - node.level + 1]
                base = ".".join([*package, base]).rstrip(".")
            for alias in node.names:  # `from package import module` is an import of the module
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in known else base)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            found |= {each.value for each in node.args if isinstance(each, ast.Constant)}
    return {each for each in found if each == "shoal" or each.startswith("shoal.")}


def graph(source=SOURCE):
    known = modules(source)
    return {name: imports(name, path, known) for name, path in known.items()}


def room(name):
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "shoal"


def inner(name):
    """The room within a room that a module belongs to, or none."""
    return next((each for each in INNER if f"{name}.".startswith(f"shoal.{each}.")), None)


def may_import(here, there):
    """Whether a room may import from another; one within a room, from a module of that room."""
    if here in INNER:
        return room(there) != here.split(".")[0] or there.split(".")[-1] in INNER[here]
    may = ROOMS[here][1]
    return may is None or there in may


def breaches(edges):
    """What is imported against the order, as lines to read."""
    order = list(ROOMS)
    for name, targets in sorted(edges.items()):
        for target in sorted(targets):
            here, there, within = room(name), room(target), inner(name)
            if here not in ROOMS or there not in ROOMS:
                yield f"{name} -> {target}: a room that isn't listed"
            elif here != there and order.index(there) > order.index(here):
                yield f"{name} -> {target}: below its own room"
            elif here != there and not may_import(here, there):
                yield f"{name} -> {target}: more than {here} may import"
            elif within and inner(target) != within and not may_import(within, target):
                yield f"{name} -> {target}: more than {within} may import"
            if inner(target) == "network.kernels" and here != "network":
                yield f"{name} -> {target}: kernels are for the network"


def test_no_room_may_import_from_below():
    order = list(ROOMS)
    for name, (_, may) in ROOMS.items():
        assert may is None or may <= set(order[: order.index(name)]), name


def drawing():
    """The table of rooms, as docs/architecture.md shows it."""
    order = list(ROOMS)
    for number, (name, (job, may)) in enumerate(ROOMS.items()):
        above = order[:number]
        missing = [each for each in above if may is not None and each not in may]
        if not may and may is not None:
            uses = "-"
        elif not missing:
            uses = "all above"
        elif len(missing) < len(above) - len(missing):
            uses = "all above but " + ", ".join(missing)
        else:
            uses = ", ".join(each for each in above if each in may)
        yield f"{name:<12} {job:<52} {uses}".rstrip()
        for whole in INNER:
            if whole.split(".")[0] == name:
                uses = ", ".join(sorted(INNER[whole]))
                yield f"  .{whole.split('.')[1]:<12} of {name}: {uses or '-'}"


def test_the_page_draws_these_rooms():
    page = Path(__file__).parents[1] / "docs" / "architecture.md"
    assert "\n".join(drawing()) in page.read_text()


def test_no_module_is_hidden_by_a_name_of_its_package():
    for name, path in modules().items():
        package = path.parent
        if path.name != "__init__.py" and (package / "__init__.py").exists():
            tree = ast.parse((package / "__init__.py").read_text())
            given = {
                alias.asname or alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.module != name.rpartition(".")[0]
                for alias in node.names
            }
            assert path.stem not in given, name


def test_each_room_imports_from_rooms_above():
    edges = {
        name: {target for target in targets if (name, target) not in EXCEPTIONS}
        for name, targets in graph().items()
    }
    assert len(edges) > 30
    assert sum(map(len, edges.values())) > 100
    assert list(breaches(edges)) == []


def test_exceptions_are_still_needed():
    edges = graph()
    assert all(target in edges[name] for name, target in EXCEPTIONS)


def test_no_module_imports_itself_by_a_detour():
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(f"a cycle: {' -> '.join(error.args[1])}")


def test_the_walk_sees_what_it_should(tmp_path):
    source = tmp_path / "shoal"
    (source / "network" / "kernels").mkdir(parents=True)
    (source / "data" / "readers").mkdir(parents=True)
    texts = {
        "__init__.py": "",
        "vocabulary.py": "def f():\n    from shoal.network import autoencoder\n",
        "report.py": "import shoal.training\n",
        "claims.py": "import shoal.vocabulary\n",
        "data/readers/npy.py": "from shoal.data import access, sources\n",
        "data/access.py": "",
        "data/sources.py": "",
        "network/__init__.py": "from .kernels import reference\n",
        "network/autoencoder.py": "from . import kernels\nfrom .. import vocabulary\n",
        "network/kernels/__init__.py": "",
        "network/kernels/reference.py": "from shoal.network.autoencoder import encode\n",
        "training.py": "import importlib\nimportlib.import_module('shoal.network.kernels')\n",
        "data/__init__.py": "from typing import *\nif TYPE_CHECKING:\n    import shoal.cli\n",
        "cli.py": "import torch\nfrom shoal.attic import dust\n",
    }
    for name, text in texts.items():
        (source / name).write_text(text)
    edges = graph(source)
    assert edges["shoal.network.autoencoder"] == {KERNELS, "shoal.vocabulary"}
    assert edges["shoal.network"] == {f"{KERNELS}.reference"}
    assert edges["shoal.cli"] == {"shoal.attic"}
    assert list(breaches(edges)) == [
        "shoal.claims -> shoal.vocabulary: more than claims may import",
        "shoal.cli -> shoal.attic: a room that isn't listed",
        "shoal.data -> shoal.cli: below its own room",
        "shoal.data.readers.npy -> shoal.data.sources: more than data.readers may import",
        "shoal.report -> shoal.training: more than report may import",
        f"shoal.training -> {KERNELS}: kernels are for the network",
        "shoal.vocabulary -> shoal.network.autoencoder: below its own room",
    ]
    with pytest.raises(CycleError):
        TopologicalSorter(edges).prepare()


# --- what no module does ---------------------------------------------------------------------

PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
TORCH_FILES = {"load", "save"}

# A format of others that is a state_dict: who writes it. Tensors alone go in.
STATE_DICTS = {("shoal.ecosystem.dictionary_learning", "torch.save")}


def unsafe(tree):
    """Calls and imports by which a file could run code, as (line, what).

    `torch.load` is none where it is told to read weights only.
    """
    sound = {
        id(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "torch.load"
        and "weights_only=True" in map(ast.unparse, node.keywords)
    }
    for node in ast.walk(tree):
        if id(node) in sound:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in PICKLES:
                    yield node.lineno, f"import {alias.name}"
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module.split(".")[0] in PICKLES:
                yield node.lineno, f"from {module}"
            if module in ("torch", "torch.serialization"):
                names = {alias.name for alias in node.names} & TORCH_FILES
                if names:
                    yield node.lineno, f"from torch import {names}"
        elif isinstance(node, ast.Attribute) and node.attr in TORCH_FILES:
            if ast.unparse(node.value) in ("torch", "torch.serialization", "torch.jit"):
                yield node.lineno, ast.unparse(node)
        elif (
            isinstance(node, ast.keyword)
            and node.arg == "allow_pickle"
            and ast.unparse(node.value) != "False"
        ):
            yield node.value.lineno, "allow_pickle"


def test_no_module_can_be_made_to_run_code_from_a_file():
    found = [
        (name, line, what)
        for name, path in modules().items()
        for line, what in unsafe(ast.parse(path.read_text()))
        if (name, what) not in STATE_DICTS
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "def f():\n    from pickle import loads",
        "import joblib.numpy_pickle",
        "torch.load('x')",
        "torch.load('x', weights_only=trust)",
        "torch.load('x', weights_only=False)",
        "torch.save(x, 'x', **named)",
        "from torch import load",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=trust)",
    ],
)
def test_the_search_for_unsafe_calls_finds(text):
    assert list(unsafe(ast.parse(text)))


def test_the_search_for_unsafe_calls_lets_pass():
    text = (
        "np.load(path, allow_pickle=False)\nsafetensors.load(b)\nself.load()\nimport json\n"
        "torch.load(file, weights_only=True)"
    )
    assert not list(unsafe(ast.parse(text)))


# --- what an import costs --------------------------------------------------------------------


def loaded_by(statement):
    """The top-level names and submodules in sys.modules after a statement in a new process."""
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


HEAVY = {"numba", "matplotlib", "sklearn", "scipy", "pandas", "plotly", "pyarrow", "zarr", "PIL"}


def test_import_shoal_is_light():
    assert not loaded_by("import shoal") & (HEAVY | {"torch"})


def test_the_words_need_no_torch():
    assert not loaded_by("import shoal.vocabulary") & (HEAVY | {"torch", "numpy"})


def test_the_report_needs_no_torch():
    assert not loaded_by("import shoal.report") & {"torch", "sklearn", "numba", "scipy"}


def test_training_needs_no_plots_nor_estimators():
    assert not loaded_by("import shoal.training") & {"numba", "matplotlib", "sklearn", "pandas"}
