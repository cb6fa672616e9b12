"""Pictures of the loss around a dictionary, drawn from its record (`Landscape.to_dict()`).

Losses are shown over that of a dictionary of zeros, so that 1 is "nothing is reconstructed".
matplotlib loads inside the functions only.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shoal.report.drawing import HUES, PRINT, Pen, as_png, panels, plain_settings
from shoal.report.run import number
from shoal.report.words import compact, count, percent, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = ["landscape_page", "landscape_png", "landscape_svgs", "landscape_words"]

WORDS = {
    "random": "random direction",
    "mean": "towards the data's mean",
    "swap": "atoms change places in pairs",
}
SHORT = {"mean": "towards the mean", "swap": "pairs swapped"}
DISTANCE = "how far each atom is moved, t"
WELL = (
    30.0  # arbitrary; times between the least and the largest from where on an axis is in decades
)


def landscape_words(record: dict[str, Any]) -> str:
    """What was evaluated, in a sentence or two."""
    parts = [
        f"{count(record['n_atoms'])} atoms of {plural(record['n_features'], 'feature')}, "
        f"{plural(record['n_samples'], 'sample')}",
        f"{record['activation']}, bias {record['bias']}",
    ]
    loss, silent = number(record["loss"]), number(record["silent"])
    zero = number(record["zero"]) or 1.0
    if loss is not None:
        parts.append(f"loss {percent(loss / zero)} of that of W = 0 at the centre")
    if silent:
        parts.append(f"{percent(silent)} of the samples wake no unit there")
    return "; ".join(parts) + "."


def landscape_svgs(record: dict[str, Any]) -> dict[str, str]:
    """Inline SVGs for a page: "loss", "gradient", and "plane" where there is one.

    Parameters
    ----------
    record : dict
        As :meth:`shoal.diagnosis.Landscape.to_dict` gives it.

    Returns
    -------
    dict of str
        Written without matplotlib, whose three figures would take longer than the numbers.
    """
    zero = number(record["zero"]) or 1.0
    found = {}
    if record["lines"]:
        names = ", ".join(WORDS.get(line["name"], line["name"]) for line in record["lines"])
        for key, title, at in (
            ("loss", "loss / loss of W = 0", record["loss"]),
            ("gradient", "mean |gradient| / loss of W = 0", record["gradient"]),
        ):
            drawn = _svg_lines(record["lines"], key, title, (number(at) or 0.0) / zero, zero)
            found[key] = _svg(drawn, f"{title}: {names}. {landscape_words(record)}")
    if record["plane"] is not None:
        names = " and ".join(SHORT.get(name, name) for name in record["plane"]["names"])
        found["plane"] = _svg(_svg_plane(record["plane"], zero), f"Loss in the plane of {names}.")
    return found


def landscape_png(record: dict[str, Any], title: str = "") -> bytes:
    """All of it as one picture on white: loss, gradient norm, and the plane."""
    with plain_settings(PRINT):
        lines, plane = bool(record["lines"]), record["plane"] is not None
        figure, axes = panels(max(1, 2 * lines + plane), width=13.0, height=4.4)
        places = iter(axes)
        if lines:
            _losses(next(places), record, PRINT)
            _gradients(next(places), record, PRINT)
        if plane:
            _plane(next(places), record, PRINT)
        head = f"{title}\n" if title else ""
        figure.suptitle(
            head + landscape_words(record), x=0.01, ha="left", fontsize=10, color=PRINT.muted
        )
        return as_png(figure)


def landscape_page(record: dict[str, Any], title: str) -> str:
    """One HTML file without any other, with the pictures as SVG."""
    svgs = landscape_svgs(record)
    captions = {
        "loss": "Loss over that of W = 0 (dashed). The dot is the dictionary itself.",
        "gradient": "Mean norm of a column of the gradient, over the loss of W = 0.",
        "plane": "Loss in a plane, the darker the lower, up to that of W = 0. The dot is the "
        "dictionary, the ring where its atoms have changed places.",
    }
    cards = "".join(
        f"<figure>{svg}<figcaption>{captions[name]}</figcaption></figure>"
        for name, svg in svgs.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><p>{escape(landscape_words(record))}</p>"
        f"<main>{cards}</main></body></html>"
    )


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}"
    "main{display:grid;grid-template-columns:repeat(auto-fit,minmax(22rem,1fr));gap:1.5rem}"
    "figure{margin:0}figcaption{font-size:.85rem;opacity:.75}h1{font-size:1.4rem}"
    "svg text{font-family:system-ui,sans-serif}"
)


# --- SVG for a page -------------------------------------------------------------------------

# Of half a column of the page, in its units: the size of matplotlib's figures there.
WIDTH, HEIGHT = 420, 214
LEFT, RIGHT, TOP, BOTTOM = 40, 412, 26, 178
_INK, _MUTED, _LINE, _ACCENT = (
    f"var(--{name}, {fallback})"
    for name, fallback in (
        ("ink", "#7a8288"),
        ("muted", "#888f94"),
        ("line", "#9aa1a6"),
        ("accent", "#2b8fb3"),
    )
)


def _svg(body: str, description: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(description)}" '
        f'font-size="10.5">{body}</svg>'
    )


class _Scale(NamedTuple):
    """From values to places along an axis."""

    low: float
    high: float
    first: float  # where `low` is
    last: float
    decades: bool = False

    def at(self, value: float) -> float:
        read = math.log10 if self.decades else float
        low, high = read(self.low), read(self.high)
        share = (read(max(value, self.low)) - low) / ((high - low) or 1.0)
        return self.first + min(share, 1.0) * (self.last - self.first)

    def ticks(self) -> list[float]:
        """At most five, at round values."""
        if self.decades:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            return [10.0**power for power in powers][:: 1 + len(powers) // 6]
        span = self.high - self.low
        if not span > 0:
            return [self.low]
        raw = span / 5
        size = 10.0 ** math.floor(math.log10(raw))
        step = next(size * each for each in (1, 2, 5, 10) if size * each >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [step * each for each in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _text(x: float, y: float, words: str, anchor: str = "middle", colour: str = _MUTED) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}">{escape(words)}</text>'


def _dot(x: float, y: float, *, ring: bool = False) -> str:
    look = f'fill="none" stroke="{_INK}" stroke-width="1.2"' if ring else f'fill="{_INK}"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" {look}/>'


def _frame(x: _Scale, y: _Scale, below: str, *, grid: bool) -> str:
    """Axes, ticks, and the words under the horizontal one."""
    parts = [f'<path d="M{LEFT} {BOTTOM}H{RIGHT}" stroke="{_LINE}" stroke-width=".8"/>']
    parts += [_text(x.at(value), BOTTOM + 14, _said(value)) for value in x.ticks()]
    for value in y.ticks():
        place = y.at(value)
        if grid:
            path = f"M{LEFT} {place:.1f}H{RIGHT}"
            parts.append(f'<path d="{path}" stroke="{_LINE}" stroke-width=".5" opacity=".45"/>')
        parts.append(_text(LEFT - 5, place + 3.5, _said(value), "end"))
    parts.append(_text((LEFT + RIGHT) / 2, BOTTOM + 31, below))
    return "".join(parts)


def _said(value: float) -> str:
    return f"{value:.6g}".replace("-", "\u2212")


def _svg_lines(
    lines: list[dict[str, Any]], key: str, title: str, centre: float, zero: float
) -> str:
    curves = [(np.array(line["t"], dtype=float), _values(line, key, zero)) for line in lines]
    known = np.concatenate([[centre], *(v[np.isfinite(v)] for _, v in curves)])
    if key == "loss":
        known = np.append(known, 1.0)
    floor, top, decades = _range(known.tolist())
    grid = np.concatenate([t for t, _ in curves])
    x = _Scale(float(grid.min()), float(grid.max()), LEFT + 4, RIGHT - 4)
    y = _Scale(floor, top, BOTTOM - 2, TOP + 4, decades)
    parts = [_frame(x, y, DISTANCE, grid=True), _text(4, 10, title, "start", _INK)]
    if key == "loss":
        place = y.at(1.0)
        path = f"M{LEFT} {place:.1f}H{RIGHT}"
        parts.append(f'<path d="{path}" stroke="{_MUTED}" stroke-dasharray="4 3" fill="none"/>')
        parts.append(_text(RIGHT, place - 4, "W = 0", "end"))
    right = float(RIGHT)
    for hue, line, (t, values) in zip(HUES * 4, lines, curves, strict=False):
        dots = [f"{x.at(a):.1f} {y.at(b):.1f}" for a, b in zip(t, values, strict=True) if b == b]
        path = "M" + "L".join(dots) if dots else ""
        parts.append(f'<path d="{path}" fill="none" stroke="{hue}" stroke-width="1.6"/>')
        if line["swapped"]:
            height = float(np.interp(line["swapped"], t, values))
            parts.append(_dot(x.at(line["swapped"]), y.at(height), ring=True))
    # The names from right to left, beside the title.
    for hue, line in reversed(list(zip(HUES * 4, lines, strict=False))):
        words = SHORT.get(line["name"], line["name"])
        parts.append(_text(right, 10, words, "end", hue))
        right -= 5.6 * len(words) + 12
    parts.append(_dot(x.at(0.0), y.at(centre)))
    return "".join(parts)


def _range(values: list[float]) -> tuple[float, float, bool]:
    """From where to where an axis goes, and whether it is in decades: six at the most."""
    known = [each for each in values if math.isfinite(each)]
    top = max(known, default=1.0) or 1.0
    floor = max(min((each for each in known if each > 0), default=top), 1e-6 * top)
    return (0.6 * floor, 1.6 * top, True) if top > WELL * floor else (0.0, 1.06 * top, False)


def _svg_plane(plane: dict[str, Any], zero: float) -> str:
    """A cell a value, the darker the lower; what is above W = 0 stays empty."""
    values = _table(plane) / zero  # (S, T)
    s, t = (np.array(plane[name], dtype=float) for name in ("s", "t"))
    half = ((s[-1] - s[0]) / (len(s) - 1) / 2, (t[-1] - t[0]) / (len(t) - 1) / 2)
    x = _Scale(float(s[0] - half[0]), float(s[-1] + half[0]), LEFT + 4, RIGHT - 4)
    y = _Scale(float(t[0] - half[1]), float(t[-1] + half[1]), BOTTOM, TOP)
    least, top = _shades(values)
    wide, high = (RIGHT - LEFT - 8) / len(s), (BOTTOM - TOP) / len(t)
    cells = []
    for i, j in np.argwhere(np.nan_to_num(values, nan=np.inf) <= top).tolist():
        shade = 0.92 - 0.87 * (values[i, j] - least) / ((top - least) or 1.0)
        place = f'x="{LEFT + 4 + i * wide:.2f}" y="{BOTTOM - (j + 1) * high:.2f}"'
        cells.append(f'<rect {place} fill-opacity="{shade:.2f}"/>')
    style = f'fill="{_ACCENT}" shape-rendering="crispEdges"'
    first, second = (SHORT.get(name, name) for name in plane["names"])
    title = f"loss / loss of W = 0, from {compact(least)} (dark) to {compact(top)}; up: {second}"
    return "".join(
        [
            f"<g {style}>",
            *(cell.replace("<rect", f'<rect width="{wide:.2f}" height="{high:.2f}"')
              for cell in cells),
            "</g>",
            _frame(x, y, f"t, {first}", grid=False),
            _text(4, 10, title, "start", _INK),
            _dot(x.at(0.0), y.at(0.0)),
            _dot(x.at(0.0), y.at(plane["swapped"]), ring=True) if plane["swapped"] else "",
        ]
    )  # fmt: skip


def _table(plane: dict[str, Any]) -> NDArray[np.float64]:
    """Losses of a plane (S, T), NaN where one has left the range of floats."""
    rows = [[np.nan if each is None else each for each in row] for row in plane["loss"]]
    return np.array(rows, dtype=float)


def _shades(values: NDArray[np.float64]) -> tuple[float, float]:
    """The least value, and the one from where on there is no shade: that of W = 0 at most."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    least, largest = float(known.min()), float(known.max())
    return least, min(largest, 1.0) if least < 1.0 else largest


# --- the parts of the picture ---------------------------------------------------------------


def _values(line: dict[str, Any], key: str, zero: float) -> NDArray[np.float64]:
    return np.array([np.nan if each is None else each for each in line[key]], dtype=float) / zero


def _losses(axes: Axes, record: dict[str, Any], pen: Pen) -> None:
    """Loss along the lines, in units of that of W = 0."""
    zero = number(record["zero"]) or 1.0
    centre = (number(record["loss"]) or 0.0) / zero
    axes.axhline(1.0, color=pen.muted, linewidth=0.9, linestyle=(0, (4, 3)))
    every = [centre, 1.0]
    for hue, line in zip(HUES * 4, record["lines"], strict=False):
        values = _values(line, "loss", zero)
        every += values[np.isfinite(values)].tolist()
        axes.plot(line["t"], values, color=hue, label=SHORT.get(line["name"], line["name"]))
        if line["swapped"]:
            _ring(axes, line["swapped"], float(np.interp(line["swapped"], line["t"], values)), pen)
    _decades(axes, every)
    axes.scatter(
        [0], [max(centre, axes.get_ylim()[0])], s=34, color=pen.ink, zorder=5, linewidths=0
    )
    axes.annotate(
        "W = 0",
        (1, 1.0),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=pen.muted,
    )
    axes.set_xlabel(DISTANCE)
    axes.set_ylabel("loss / loss of W = 0")
    axes.margins(x=0.02)
    legend = axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 0.99),
        ncols=max(1, len(record["lines"])),
        frameon=False,
        handlelength=1.2,
        columnspacing=1.0,
        fontsize=9.5,
    )
    legend.set_in_layout(False)  # the axes would be narrowed to its width
    axes.set_title(" ", fontsize=16)  # the room that it takes


def _gradients(axes: Axes, record: dict[str, Any], pen: Pen) -> None:
    zero = number(record["zero"]) or 1.0
    centre = (number(record["gradient"]) or 0.0) / zero
    every = [centre]
    for hue, line in zip(HUES * 4, record["lines"], strict=False):
        values = _values(line, "gradient", zero)
        every += values[np.isfinite(values)].tolist()
        axes.plot(line["t"], values, color=hue)
        if line["swapped"]:
            _ring(axes, line["swapped"], float(np.interp(line["swapped"], line["t"], values)), pen)
    _decades(axes, every)
    axes.scatter(
        [0], [max(centre, axes.get_ylim()[0])], s=34, color=pen.ink, zorder=5, linewidths=0
    )
    axes.set_xlabel(DISTANCE)
    axes.set_ylabel("mean |gradient| / loss of W = 0")
    axes.margins(x=0.02)
    _marks(axes, any(line["swapped"] for line in record["lines"]), pen)


def _decades(axes: Axes, values: list[float]) -> None:
    """The range of a vertical axis, in decades where the values ask for it."""
    floor, top, decades = _range(values)
    if decades:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylim(floor, top)


def _marks(axes: Axes, swapped: bool, pen: Pen) -> None:
    """What the dot and the ring are, in the place of a legend."""
    from matplotlib.lines import Line2D

    plain: dict[str, Any] = {
        "linestyle": "none",
        "marker": "o",
        "markersize": 6,
        "markeredgecolor": pen.ink,
    }
    handles = [Line2D([], [], markerfacecolor=pen.ink, label="the dictionary", **plain)]
    if swapped:
        handles.append(Line2D([], [], markerfacecolor="none", label="all pairs swapped", **plain))
    legend = axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(-0.02, 0.99),
        ncols=2,
        frameon=False,
        handlelength=0.8,
        columnspacing=1.0,
        fontsize=9.5,
    )
    legend.set_in_layout(False)


def _ring(axes: Axes, x: float, y: float, pen: Pen) -> None:
    axes.scatter(
        [x], [max(y, 1e-300)], s=40, facecolors="none", edgecolors=pen.ink, linewidths=1.2, zorder=5
    )


def _plane(axes: Axes, record: dict[str, Any], pen: Pen) -> None:
    """Contours of the loss, darker where it is lower; what is above W = 0 stays white."""
    from matplotlib.colors import to_rgba

    plane = record["plane"]
    zero = number(record["zero"]) or 1.0
    values = _table(plane).T / zero  # the first direction to the right
    least, top = _shades(values)
    axes.grid(visible=False)
    if top > least:
        levels = np.linspace(least, top, 8)
        shades = [to_rgba(pen.accent, 0.92 - 0.85 * place / 6) for place in range(7)]
        shown = np.ma.masked_invalid(values)
        axes.contourf(plane["s"], plane["t"], shown, levels=levels, colors=shades)
        lines = axes.contour(
            plane["s"], plane["t"], shown, levels=levels[1:], colors=[pen.line], linewidths=0.6
        )
        axes.clabel(
            lines, levels[2::2], fmt=lambda value: f"{value:.2g}", fontsize=8, colors=pen.ink
        )
    axes.scatter([0], [0], s=34, color=pen.ink, zorder=5, linewidths=0)
    if plane["swapped"]:
        _ring(axes, 0.0, plane["swapped"], pen)
    first, second = (SHORT.get(name, name) for name in plane["names"])
    axes.set_xlabel(f"t, {first}")
    axes.set_ylabel(f"t, {second}")
    title = f"loss / loss of W = 0: {compact(least)} (dark) to {compact(top)}"
    axes.set_title(title, fontsize=9.5)
