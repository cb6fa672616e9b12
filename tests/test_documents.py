"""Documents are true: their Python runs, and what they link to is there.

Blocks marked `python` run, page by page, in an empty folder; those marked `py` are to be read.
"""

import importlib.util
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/notes").glob("*.md")]
)
CODE = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
# Their blocks are files of a user's own: tests/test_how_to_add.py runs them.
APART = {"architecture.md"}
RUN = [page for page in PAGES if page.name not in APART and CODE.search(page.read_text())]


def name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", RUN, ids=name)
@pytest.mark.filterwarnings("ignore::UserWarning")  # notes are for people
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "page"}
    for block in CODE.finditer(page.read_text()):
        line = page.read_text()[: block.start()].count("\n") + 1
        exec(compile("\n" * line + block.group(1), str(page), "exec"), space)
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_a_page_links_to_is_there(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not re.match(r"[a-z]+:", target) and not target.startswith("auto_examples"):
            assert (page.parent / target).exists(), target
    for target in re.findall(r"\{doc\}`([^`]+)`", text):
        assert (page.parent / f"{target}.md").exists(), target


def test_examples_of_the_gallery_begin_with_a_title():
    scripts = sorted((ROOT / "examples").glob("plot_*.py"))
    assert scripts
    for script in scripts:
        assert re.match(r'"""\n\S.*\n=+\n', script.read_text()), script.name


def public():
    """Every class and function of the reference, by its name there."""
    spec = importlib.util.spec_from_file_location("conf", ROOT / "docs/conf.py")
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)
    shown = {}
    for room in conf.ROOMS:
        for kind, names in conf.documented(room, shown).items():
            if kind in ("Classes", "Functions"):
                yield from (
                    (f"{room}.{each}", getattr(import_module(room), each)) for each in names
                )


def test_every_public_name_says_what_it_is_and_its_parameters_are_those_of_its_signature():
    docscrape = pytest.importorskip("numpydoc.docscrape")
    pytest.importorskip("sphinx")
    wrong = []
    for each, value in public():
        text = inspect.getdoc(value)
        if not text:
            wrong.append(f"{each}: nothing")
            continue
        listed = docscrape.NumpyDocString(text)["Parameters"]
        found = [word.strip("*` ") for entry in listed for word in entry.name.split(",")]
        if not found:
            continue
        given = [name for name in inspect.signature(value).parameters if name != "self"]
        if found != given:
            wrong.append(f"{each}: documents {found}, takes {given}")
    assert not wrong, "\n".join(wrong)


# Of the public callables, those whose text has an example that the tests run.
WITH_EXAMPLE = 0.6


def test_most_public_names_have_an_example_that_runs():
    pytest.importorskip("sphinx")
    with_example = {each: ">>>" in (inspect.getdoc(value) or "") for each, value in public()}
    share = sum(with_example.values()) / len(with_example)
    bare = ", ".join(each for each, has in with_example.items() if not has)
    assert share >= WITH_EXAMPLE, f"{share:.0%}; none at {bare}"
