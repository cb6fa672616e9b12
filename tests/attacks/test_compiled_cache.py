"""Compiled kernels on disk: whatever is done to their files, a call gives what it would without."""

import logging
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import shoal

numba = pytest.importorskip("numba")

from numba.core.dispatcher import _FunctionCompiler as _Compiler  # noqa: E402

from shoal.network.kernels import ahead, compiled, compiling, pursuits, untied  # noqa: E402
from shoal.network.kernels.compiling import _Cache  # noqa: E402


def _forbidden(*_):
    raise AssertionError("compiled")


def cubes(numbers):
    total = 0.0
    for number in numbers:
        total += number**3
    return total


NUMBERS = np.arange(5.0)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A function anew, as another process would have it, with its cache in `tmp_path`."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiling, "_said", set())

    def call():
        function = compiling.apart(cubes)
        assert function(NUMBERS) == 100.0
        (hits,) = [sum(function.stats.cache_hits.values())]
        return hits, sorted(Path(function.stats.cache_path).iterdir())

    return call


def test_what_is_kept_is_used(kept, caplog):
    caplog.set_level(logging.INFO, "shoal")
    hits, files = kept()
    assert (hits, len(files)) == (0, 1)
    assert [record.getMessage().split()[0] for record in caplog.records] == ["compiling"]
    compiling._said.clear()
    assert kept() == (1, files)
    assert len(caplog.records) == 1, "nothing is compiled, and nothing said"


def damage(path, how):
    content = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "full folder":
        path.mkdir()
        (path / "file").touch()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "endless":
        path.symlink_to("/dev/zero")
    elif how == "loop":
        path.symlink_to(path)
    elif how == "other":
        path.write_bytes(b"not at all a kernel")
    elif how == "twice":
        path.write_bytes(content * 2)
    elif isinstance(how, float):
        path.write_bytes(content[: int(how * len(content))])
    else:  # a bit of a byte
        changed = bytearray(content)
        changed[how * (len(content) - 1) // 10] ^= 4
        path.write_bytes(bytes(changed))


@pytest.mark.parametrize(
    "how",
    [
        *("folder", "full folder", "pipe", "endless", "other", "twice"),
        *(0.0, 0.001, 0.5, 0.999),
        *range(11),
    ],
    ids=str,
)
def test_a_damaged_file_is_named_once_and_made_anew(kept, caplog, how):
    _, (path,) = kept()
    damage(path, how)
    with caplog.at_level(logging.WARNING, "shoal"):
        assert kept()[0] == 0
        assert kept()[0] == (0 if how == "full folder" else 1)
    said = [record.getMessage() for record in caplog.records]
    assert str(path) in said[0]
    # What can't be taken away is said as well: each process compiles its own.
    assert len(said) == (2 if how == "full folder" else 1)


def test_a_link_to_itself_is_no_file(kept):
    _, (path,) = kept()
    damage(path, "loop")
    assert kept()[0] == 0
    assert kept()[0] == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_a_file_that_may_not_be_read(kept):
    _, (path,) = kept()
    path.chmod(0)
    assert kept()[0] == 0
    assert stat.S_IMODE(path.stat().st_mode) & stat.S_IRUSR


def test_a_folder_that_is_gone_is_made_anew(kept, monkeypatch):
    _, (path,) = kept()
    function = compiling.apart(cubes)
    shutil.rmtree(path.parent)
    assert function(NUMBERS) == 100.0
    assert path.exists()


def test_a_folder_that_became_a_file_costs_the_cache_only(kept, caplog):
    _, (path,) = kept()
    function = compiling.apart(cubes)
    shutil.rmtree(path.parent)
    path.parent.touch()
    with caplog.at_level(logging.WARNING, "shoal"):
        assert function(NUMBERS) == 100.0
    assert "can't be kept" in caplog.records[-1].getMessage()


def test_files_of_other_sources_are_not_used_and_go(kept, monkeypatch):
    _, (path,) = kept()
    monkeypatch.setattr(compiling, "_made_from", lambda: "0" * 12)
    hits, files = kept()
    assert hits == 0
    assert len(files) == 1
    assert files != [path]


# --- what a package brings ---------------------------------------------------------------------


@pytest.fixture
def delivered(kept, tmp_path, monkeypatch):
    """:func:`kept`'s function as a package brings it, and nothing that was kept."""
    monkeypatch.setattr(compiling, "DELIVERED", tmp_path / "delivered")
    compiling.DELIVERED.mkdir()
    function = compiling.apart(cubes)
    function(NUMBERS)
    ((kinds, found),) = function.overloads.items()
    function._cache.deliver(kinds, found, compiling.DELIVERED)
    for path in Path(function.stats.cache_path).glob("*.nbc"):
        path.unlink()
    (path,) = compiling.DELIVERED.iterdir()
    return path


def test_what_is_delivered_is_finished_and_kept(kept, delivered, monkeypatch):
    monkeypatch.setattr(_Compiler, "compile", _forbidden)
    hits, files = kept()
    assert (hits, len(files)) == (1, 1)
    delivered.unlink()
    assert kept() == (1, files)


@pytest.mark.parametrize("how", ["pipe", "other", "twice", 0.5, 5, "folder"], ids=str)
def test_a_damaged_delivery_costs_a_compilation(kept, delivered, caplog, how):
    damage(delivered, how)
    with caplog.at_level(logging.WARNING, "shoal"):
        assert kept()[0] == 0
    assert str(delivered) in caplog.records[0].getMessage()
    assert kept()[0] == 1


def test_what_was_delivered_for_other_sources_is_not_used(kept, delivered, monkeypatch):
    monkeypatch.setattr(compiling, "_made_from", lambda: "0" * 12)
    assert kept()[0] == 0


def test_every_compiled_function_is_delivered():
    for home in (compiled, pursuits, untied):
        found = {
            name: getattr(each, "one", each)
            for name, each in vars(home).items()
            if isinstance(each, compiling.shared) or isinstance(getattr(each, "_cache", 0), _Cache)
        }
        # Not what is another module's, or has a second name.
        names = {each: (each.py_func.__module__, each.py_func.__name__) for each in found.values()}
        own = {k: each for k, each in found.items() if names[each] == (home.__name__, k)}
        listed = {
            name.partition(".")[2]: letters.split()
            for name, letters in ahead.FUNCTIONS.items()
            if home.__name__.endswith(name.partition(".")[0])
        }
        assert {name: each.py_func.__code__.co_argcount for name, each in own.items()} == {
            name: len(letters) for name, letters in listed.items()
        }


FRESH = """
import sys
import numba.core.event as event
compiled = []
class Compiled(event.Listener):
    def on_start(self, told):
        compiled.append(told.data["dispatcher"])
    def on_end(self, told):
        pass
event.register("numba:compile", Compiled())
from pathlib import Path
from shoal.network.kernels import compiling
compiling.DELIVERED = Path({folder!r})
for dtype in (np.float32, np.float64):
    shoal.DictionaryAutoencoder(64, 3, random_state=0).fit(X.astype(dtype))
assert compiled == [], compiled
"""


@pytest.mark.skipif(not os.environ.get("SHOAL_ATTACKS"), reason="SHOAL_ATTACKS is not set")
def test_a_first_fit_compiles_nothing_that_is_delivered(tmp_path, monkeypatch):
    monkeypatch.setattr(ahead, "FOLDER", tmp_path / "delivered")
    script = f"import sys; sys.path.insert(0, {str(Path(ahead.__file__).parent)!r})\n"
    script += "import ahead\nfrom pathlib import Path\n"
    script += f"ahead.FOLDER = Path({str(ahead.FOLDER)!r}); ahead.FOLDER.mkdir()\n"
    script += "for name in ahead.FUNCTIONS:\n    for real in ahead.REALS:\n"
    script += "        ahead.deliver((name, real))\n"
    process = started(script, NUMBA_CACHE_DIR=str(tmp_path / "one"))
    _, errors = process.communicate(timeout=250)
    assert process.returncode == 0, errors
    begin = FIT.replace("size=(200, 16)", "size=(3000, 40)").partition("model =")[0]
    script = begin + FRESH.format(folder=str(ahead.FOLDER))
    process = started(script, NUMBA_CACHE_DIR=str(tmp_path / "two"))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


# --- functions that others are made of -------------------------------------------------------


@compiling.within
def twice(x, y):
    return 2 * x + y


@compiling.inline
def thrice(x, y):
    return 3 * x - y


def test_parts_with_the_same_arguments_are_told_apart():
    both = compiling.apart(lambda x, y: (twice(x, y), thrice(x, y), twice(y, 1)))
    for numbers in ((3, 5), (3.5, 5.25)):
        x, y = numbers
        assert both(*numbers) == (2 * x + y, 3 * x - y, 2 * y + 1)


def test_a_part_is_not_compiled_again_for_a_constant():
    before = set(twice.overloads)
    assert compiling.apart(lambda x: twice(x, 7) + twice(7, x) + twice(1, 2))(5) == 17 + 19 + 4
    assert set(twice.overloads) - before <= {(numba.int64, numba.int64)}


def test_a_part_by_itself_is_refused():
    compiling.apart(lambda x: twice(x, x))(1)
    with pytest.raises((KeyError, TypeError)):
        twice(1, 1)


# --- processes -------------------------------------------------------------------------------

ALONE = """
import sys
sys.path.insert(0, {folder!r})
if {limit}:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
import cubes
print(cubes.cubes(2))
"""


def started(script, **environment):
    source = str(Path(shoal.__file__).parents[1])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def cubed(folder, limit):
    (folder / "cubes.py").write_text(
        "from shoal.network.kernels.compiling import apart\n"
        "@apart\ndef cubes(x):\n    return x**3\n"
    )
    script = ALONE.format(folder=str(folder), limit=limit)
    return started(script, NUMBA_CACHE_DIR=str(folder / "cache"))


def test_a_disk_without_room(tmp_path):
    process = cubed(tmp_path, 100)
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, "8\n"), errors
    assert errors.count("can't be kept") == 1
    assert not [each for each in (tmp_path / "cache").rglob("*") if each.is_file()]


@pytest.mark.skipif(not os.environ.get("SHOAL_ATTACKS"), reason="SHOAL_ATTACKS is not set")
def test_processes_that_compile_at_once(tmp_path):
    many = [cubed(tmp_path, 0) for _ in range(3)]
    assert [each.communicate(timeout=120) for each in many] == [("8\n", "")] * 3
    assert len(list((tmp_path / "cache").rglob("*.nbc"))) == 1


FIT = """
import numpy as np, torch, shoal
torch.set_num_threads(1)
X = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
model = shoal.DictionaryAutoencoder(24, 2, random_state=0).fit(X)
found = model.components_.tobytes(), model.transform(X, method="omp").tobytes()
"""


def test_a_fit_outlives_damage_to_any_of_its_functions(tmp_path):
    here = {}
    before = torch.get_num_threads()
    exec(FIT, here)  # and so they are kept
    torch.set_num_threads(before)
    folder = Path(compiled.choose.one.stats.cache_path)
    there = numba.core.caching.UserProvidedCacheLocator.get_suitable_cache_subpath(
        compiled.__file__
    )
    shutil.copytree(folder, tmp_path / there)
    # Small ones, so that it doesn't take long; two of them are called by another as well.
    names = ("matching_pursuit", "offsets", "by_unit")
    damaged = [each for name in names for each in tmp_path.rglob(f"*.{name}-*.nbc")]
    assert len(damaged) >= 3
    for path in damaged:
        damage(path, 0.5)
    process = started(
        FIT + "print(*(each.hex() for each in found))", NUMBA_CACHE_DIR=str(tmp_path)
    )  # fmt: skip
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert errors.count("not a compiled kernel") == 1
    assert out.split() == [each.hex() for each in here["found"]]
