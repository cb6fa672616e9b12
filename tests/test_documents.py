"""Documents are true: their Python runs, and what they link to is there.

Blocks marked `python` run, page by page, in an empty folder; those marked `py` are to be read.
"""

import re
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
