"""The site: `make docs`. Pages are written in Markdown, the reference is made of docstrings."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sphinx.ext import autosummary

import shoal

HERE = Path(__file__).parent

project = "shoal"
author = copyright = "The shoal developers"
version = release = shoal.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "examples", "auto_examples/**.ipynb", "auto_examples/**.py"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = "shoal"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
numpydoc_xref_param_type = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "/plot_",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "show_memory": False,
    "min_reported_time": 1,
    "matplotlib_animations": False,
    "reference_url": {},
}

# What the reference shows, room by room, in the order in which a newcomer needs it.
ROOMS = {
    "shoal": "What most need: estimators, sources, runs.",
    "shoal.plot": "Pictures of a model.",
    "shoal.tl": "Dictionaries of AnnData objects.",
    "shoal.diagnosis": "How good a dictionary and its codes are, in numbers.",
    "shoal.certificate": "How far each atom can be trusted.",
    "shoal.data": "Sources: readers, batches, preprocessing.",
    "shoal.generative": "Worlds whose dictionary is known.",
    "shoal.training": "Descent, its parts, and recipes.",
    "shoal.network": "The autoencoder as pure functions.",
    "shoal.network.activations": "What comes after the product.",
    "shoal.network.penalties": "What makes an autoencoder sparse.",
    "shoal.network.inference": "Pursuits: codes from atoms.",
    "shoal.network.objective": "Losses as sums.",
    "shoal.theory": "The papers' theorems in numbers.",
    "shoal.theory.rangamani2017": "Rangamani et al. 2017.",
    "shoal.theory.nguyen2019": "Nguyen, Wong and Hegde 2018/2019.",
    "shoal.theory.arpit2016": "Arpit et al. 2016.",
    "shoal.ecosystem": "Other packages' folders.",
    "shoal.experiments": "What an experiment is, runs and leaves behind.",
    "shoal.papers": "The papers' tables and figures.",
    "shoal.sweeps": "A penalty's strengths, one by one.",
    "shoal.report": "Pages of a run.",
    "shoal.parts": "How parts register themselves.",
    "shoal.claims": "What was found, needed, and whether it holds.",
    "shoal.vocabulary": "Words, checks and errors.",
}


def documented(room: str, shown: dict[int, str]) -> dict[str, list[str]]:
    """The names that a room offers, by kind. `shown` has where each object was shown first."""
    module = importlib.import_module(room)
    kinds: dict[str, list[str]] = {"Classes": [], "Functions": [], "Values": [], "Also here": []}
    for name in sorted(module.__all__):
        value = getattr(module, name)
        if inspect.ismodule(value) or name.startswith("__"):
            continue
        if not callable(value):
            kinds["Values"].append(name)
        elif id(value) in shown:
            kinds["Also here"].append(shown[id(value)])
        elif inspect.isclass(value):
            kinds["Classes"].append(name)
        elif inspect.isroutine(value):
            kinds["Functions"].append(name)
        else:
            kinds["Values"].append(name)
        if callable(value):
            shown.setdefault(id(value), f"{room}.{name}")
    return {kind: names for kind, names in kinds.items() if names}


def write_reference(app: object) -> None:
    """A page for each room, with a table that links to a page for each name."""
    folder = HERE / "api"
    folder.mkdir(exist_ok=True)
    index = [
        "# API reference",
        "",
        "Atoms are rows everywhere: dictionary `(m, n)`, data `(N, n)`,",
        "codes `(N, m)`.",
        "",
        "| | |",
        "|---|---|",
    ]
    index += [f"| [`{room}`]({room}.rst) | {says} |" for room, says in ROOMS.items()]
    index += ["", "```{toctree}", ":hidden:", ":maxdepth: 1", "", *ROOMS, "```", ""]
    _write(folder / "index.md", "\n".join(index))
    shown: dict[int, str] = {}
    pages = set()
    for room, says in ROOMS.items():
        lines = [room, "=" * len(room), "", says, ""]
        for kind, names in documented(room, shown).items():
            lines += [kind, "-" * len(kind), "", f".. currentmodule:: {room}", ""]
            if kind == "Also here":
                lines += [*(f"* :obj:`{name}`" for name in names), ""]
                continue
            if kind == "Values":
                for name in names:
                    lines += [f".. autodata:: {name}", "   :no-value:", ""]
                continue
            pages |= {f"{room}.{name}.rst" for name in names}
            lines += [".. autosummary::", "   :toctree: generated", ""]
            lines += [*(f"   {name}" for name in names), ""]
        _write(folder / f"{room}.rst", "\n".join(lines))
    for page in (folder / "generated").glob("*.rst"):
        if page.name not in pages:  # of an earlier build
            page.unlink()


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def with_bars(
    app: object, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Docstrings are read in a terminal too: \\|x\\| is |x| there, and not a substitution here."""
    literal: int | None = None  # the indentation of what a literal block hangs from
    example = False
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if line.strip() and literal is not None and indent <= literal:
            literal = None
        example = line.lstrip().startswith((">>>", "...")) or (example and bool(line.strip()))
        if literal is None and not example:
            parts = line.split("``")  # what is between is code
            parts[::2] = [re.sub(r"(?<!\\)\|", r"\\|", part) for part in parts[::2]]
            lines[i] = "``".join(parts)
            if line.rstrip().endswith("::"):
                literal = indent


def with_bars_in_tables(extract: Callable[..., str]) -> Callable[..., str]:
    """The same for the first sentence that a table shows."""
    return lambda *given: extract(*given).replace("|", r"\|")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    write_reference(app)
    app.connect("autodoc-process-docstring", with_bars, priority=900)
    autosummary.extract_summary = with_bars_in_tables(autosummary.extract_summary)
