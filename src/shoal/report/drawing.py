"""How figures are drawn: the page's colours, plain settings, and SVG for a page.

The SVGs are written for a page, not for a file: transparent, without XML header, link or
date, and coloured with CSS variables (``var(--ink, ...)``) so that they follow the page
into the dark. The same figure drawn with the pen ``PRINT`` is a picture on white.
matplotlib loads inside the functions only.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "HUES",
    "PAGE",
    "PRINT",
    "Pen",
    "as_png",
    "as_svg",
    "new_axes",
    "panels",
    "plain_settings",
]


class Pen(NamedTuple):
    """The colours of a figure."""

    ink: str
    muted: str
    line: str
    accent: str
    second: str
    soft: str


# Stand-ins that matplotlib draws with; each leaves the SVG as the CSS variable of the page,
# with a mid tone behind it that reads on white and on black where there is no page.
PAGE = Pen("#010101", "#010102", "#010103", "#010104", "#010105", "#010106")
_VARIABLES = {
    "ink": "#7a8288",
    "muted": "#888f94",
    "line": "#9aa1a6",
    "accent": "#2b8fb3",
    "second": "#dd7146",
    "accent-soft": "#8fc3d6",
}
PRINT = Pen("#1b2227", "#5b666d", "#b9bfc2", "#1a7596", "#c4562a", "#8fc3d6")

HUES = ("#2b8fb3", "#dd7146", "#4f9d59", "#a36bb5", "#b58f27", "#7a8aa0")
"""For several curves: mid tones that read on white and on black, and tell apart in grey."""


def plain_settings(pen: Pen = PAGE) -> AbstractContextManager[None]:
    """matplotlib as it ships, whatever the user's matplotlibrc says, plus what SVG needs."""
    from contextlib import contextmanager

    import matplotlib

    @contextmanager
    def settings() -> Iterator[None]:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(
                {
                    "svg.fonttype": "none",  # text stays text: smaller, and in the page's font
                    "svg.hashsalt": "shoal",
                    "font.size": 10.5,
                    "axes.labelcolor": pen.muted,
                    "axes.edgecolor": pen.line,
                    "axes.linewidth": 0.8,
                    "axes.spines.top": False,
                    "axes.spines.right": False,
                    "axes.spines.left": False,
                    "axes.titlelocation": "left",
                    "axes.unicode_minus": True,
                    "xtick.color": pen.line,
                    "ytick.color": pen.line,
                    "xtick.labelcolor": pen.muted,
                    "ytick.labelcolor": pen.muted,
                    "xtick.major.size": 3,
                    "ytick.major.size": 0,
                    "xtick.minor.size": 0,
                    "ytick.minor.size": 0,
                    "grid.color": pen.line,
                    "grid.linewidth": 0.5,
                    "grid.alpha": 0.45,
                    "text.color": pen.ink,
                    "lines.linewidth": 1.6,
                    "lines.solid_capstyle": "round",
                }
            )
            yield

    return settings()


def new_axes() -> tuple[Figure, Axes]:
    """A figure for half a column of the page, and its axes."""
    # 420 units wide: a half column of the page, where the text comes out at the page's
    # small size, and still legible across a phone.
    figure, (axes,) = panels(1, width=5.84, height=2.9)
    return figure, axes


def panels(columns: int, *, width: float = 12.0, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A figure for the whole width of the page, and its axes side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    every = [figure.add_subplot(1, columns, place + 1) for place in range(columns)]
    for axes in every:
        axes.patch.set_alpha(0)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
    return figure, every


def as_png(figure: Figure) -> bytes:
    """A figure drawn with ``PRINT``, on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def as_svg(figure: Figure, name: str, description: str) -> str:
    """A figure drawn with ``PAGE`` as an inline SVG, its ids prefixed by `name`."""
    from html import escape

    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    # In a page the namespaces are known, the size is the column's, and ids must differ
    # between figures.
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1>", svg, count=1)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r" font-family: [^;]*;", "", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.S)  # its `*` would style the page
    for stand_in, (variable, fallback) in zip(PAGE, _VARIABLES.items(), strict=True):
        svg = svg.replace(stand_in, f"var(--{variable}, {fallback})")
    svg = re.sub(r"\n\s*", "\n", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)
