"""The one-file HTML page of a run, and its picture of the atoms.

Both are written atomically: everything is rendered before a temporary file in the run's
own folder is opened, and that file replaces the old one in one step or is removed.
The same run folder gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import os
import re
import zlib
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shoal.files import write_bytes
from shoal.report import figures, plots
from shoal.report.landscape import landscape_svgs, landscape_words
from shoal.report.run import Run, number, picture_shape, read_run
from shoal.report.words import (
    chips,
    compact,
    count,
    duration,
    headline,
    percent,
    phases,
    plural,
    tiles,
)
from shoal.run_folder import check_folder, claim_run, page_with_checksum
from shoal.vocabulary import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

__all__ = ["atoms_bytes", "report_bytes", "write_atoms", "write_report"]

# Arbitrary; 4096 atoms of 16 x 16 are about a megabyte of page, and still scroll well.
PIXELS = 1_500_000
TILES = 8192
GALLERY = 880  # CSS pixels: the page's width less the inspector beside the gallery
SCROLLED = 600  # tiles; more of them scroll in a window of their own
STEM_ROWS = 48  # as many bar plots as a person looks at
TABLE_ROWS = 256
# Comparing all atoms costs m^2 n; above this (10-20 s on two cores) only the drawn ones are.
ALL_PAIRS = 1e12
BLOCK = 1024  # rows of the Gram matrix at once
EDGES = np.linspace(0, 1, 51)


# --------------------------------------------------------------------------- files


def write_atoms(folder: str | os.PathLike[str]) -> Path:
    """Draw the dictionary of a run as one picture, ``atoms.png`` in its folder.

    Atoms stand by energy (mean squared code), largest first, row by row. Atoms of pictures
    are tiles, each scaled to its own largest magnitude about mid-grey; others are the rows
    of a heat map. Where not all are drawn the picture says so.

    Parameters
    ----------
    folder : path
        A run folder.

    Returns
    -------
    Path
        The picture.

    Raises
    ------
    RunError
        Where the folder isn't a run, is being written, or can't be written to.
    """
    with _held(folder) as run:
        return write_bytes(run.folder / "atoms.png", atoms_bytes(run))


def write_report(
    folder: str | os.PathLike[str], *, certificate: Mapping[str, Any] | None = None
) -> Path:
    """Write the page of a run, ``report.html`` in its folder.

    The page is one file: it names no network address, and everything but sorting, hovering
    and enlarging works without JavaScript.

    Parameters
    ----------
    folder : path
        A run folder.
    certificate : mapping, optional
        What :meth:`shoal.certificate.Certificate.to_dict` gives: a verdict for each atom.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    RunError
        Where the folder isn't a run, is being written, or can't be written to.
    """
    with _held(folder) as run:
        return write_bytes(run.folder / "report.html", report_bytes(run, certificate))


@contextmanager
def _held(folder: str | os.PathLike[str]) -> Iterator[Run]:
    """The run, which nobody replaces while its page is made."""
    path = Path(os.path.abspath(check_folder(folder)))
    # Who may not write beside it can't replace it either, nor could a lock be put there.
    lockable = path.name != "" and os.access(path.parent, os.W_OK | os.X_OK)
    with claim_run(path, overwrite=True) if lockable else nullcontext():
        yield read_run(folder)


def atoms_bytes(run: Run) -> bytes:
    """What :func:`write_atoms` writes."""
    from PIL import Image

    order, total = run.order(), len(run.dictionary)
    if run.feature_shape is not None:
        order = order[: _most_tiles(run.dictionary.shape[1])]
    picture = figures.atoms_image(run.dictionary, run.feature_shape, order=order)
    image = Image.fromarray(picture)
    if run.feature_shape is not None and len(order) < total:
        image = _captioned(image, f"first {len(order)} of {total} atoms, by energy")
    return _png(image, run.config.get("run_id"))


def report_bytes(run: Run, certificate: Mapping[str, Any] | None = None) -> bytes:
    """What :func:`write_report` writes."""
    return page_with_checksum(_render(run, certificate), run.config)


def _png(image: Any, name: str | None = None) -> bytes:
    """`image` as a PNG; with the name of the run that it shows, to be checked by."""
    from PIL.PngImagePlugin import PngInfo

    said = PngInfo()
    if name is not None:
        said.add_text("shoal run", name)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True, pnginfo=said)
    return buffer.getvalue()


def _captioned(image: Any, text: str) -> Any:
    """`image` with a line of text under it."""
    from PIL import Image, ImageDraw

    out = Image.new(image.mode, (image.width, image.height + 26), "white")
    out.paste(image, (0, 0))
    ImageDraw.Draw(out).text((4, image.height + 6), text, fill="black")
    return out


def _most_tiles(n: int) -> int:
    return max(1, min(TILES, PIXELS // n))


# --------------------------------------------------------------------------- likeness


class Likeness(NamedTuple):
    """How alike atoms are.

    Attributes
    ----------
    nearest : ndarray of shape (n_rows,)
        For each row asked for, the other atom of largest |cosine|; -1 where there is none.
    cosine : ndarray of shape (n_rows,)
        Its cosine, with its sign.
    counts : ndarray of shape (n_bins,)
        Pairs by |cosine|, in the bins of `EDGES`.
    """

    nearest: NDArray[np.intp]
    cosine: NDArray[np.float32]
    counts: NDArray[np.int64]


def likeness(dictionary: NDArray[np.float32], rows: NDArray[np.intp]) -> Likeness:
    """Compare the atoms `rows` with all atoms, in blocks; an atom of norm 0 is like none.

    A pair counts once where both of it are in `rows`.
    """
    m = len(dictionary)
    norms = np.linalg.norm(dictionary, axis=1, keepdims=True)
    unit = dictionary / np.where(norms > 0, norms, 1)
    place = np.full(m, -1)
    place[rows] = np.arange(len(rows))
    nearest = np.full(len(rows), -1)
    cosine = np.zeros(len(rows), dtype=np.float32)
    counts = np.zeros(len(EDGES) - 1, dtype=np.int64)
    for start in range(0, len(rows), BLOCK) if m > 1 else ():
        block = rows[start : start + BLOCK]
        gram = unit[block] @ unit.T  # (block, m)
        here = np.arange(len(block))
        size = np.minimum(np.abs(gram), 1)
        # A partner that had its turn before this row has counted the pair already.
        new = (place[None, :] < 0) | (place[None, :] > (start + here)[:, None])
        counts += np.histogram(size[new], EDGES)[0]
        size[here, block] = -1
        best = size.argmax(axis=1)
        nearest[start : start + len(block)] = best
        cosine[start : start + len(block)] = gram[here, best]
    zero = norms[rows, 0] == 0
    nearest[zero], cosine[zero] = -1, 0
    return Likeness(nearest, np.clip(cosine, -1, 1), counts)


# --------------------------------------------------------------------------- the page


def _render(run: Run, certificate: Mapping[str, Any] | None) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # The page's policy lets this script run, and no other.
    script = (Path(__file__).parent / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("template.html").render(
        script=script, script_hash=f"sha256-{digest}", **_context(run, certificate)
    )


def _context(run: Run, certificate: Mapping[str, Any] | None) -> dict[str, Any]:
    m, n = run.dictionary.shape
    order = run.order()
    most = _most_tiles(n) if run.feature_shape is not None else TILES
    drawn = order[:most]
    every = m * m * n <= ALL_PAIRS
    alike = likeness(run.dictionary, order if every else drawn)
    sentences = headline(run)
    diagnosis = run.section("diagnosis")
    l0_counts = _counts(diagnosis.get("l0_histogram"))
    trusted = _trusted(certificate, m)
    atoms = _atoms(run, drawn, alike, trusted["verdicts"] if trusted else None)
    source = run.section("source")
    return {
        "name": str(source.get("name", run.folder.name)),
        "created": _created(run),
        "version": str(run.config.get("shoal_version", "")),
        "headline": sentences[0],
        "trust": sentences[1:],
        "chips": chips(run),
        "tiles": tiles(run),
        "diagnosed": _diagnosed(run),
        "total": m,
        "drawn": len(drawn),
        "by_energy": run.energy is not None,
        "has_activation": run.activation is not None,
        "preprocessing": run.section("preprocessing").get("kind"),
        "atoms": atoms,
        "table_rows": atoms[:TABLE_ROWS],
        # Where the nearest atom of the first one stands, for the inspector without a script.
        "mate": next((i for i, a in enumerate(atoms) if a["index"] == atoms[0]["nearest"]), None),
        "pictures": _pictures(run, drawn) if run.feature_shape is not None else None,
        "features": _features(run, drawn, atoms) if run.feature_shape is None else None,
        "curves": figures.learning_curves(run.history),
        "records": len(run.history),
        "most_records": plots.RECORDS,
        "phases": phases(run),
        "activation": (
            None if run.activation is None else figures.activation_histogram(run.activation)
        ),
        "l0": figures.l0_histogram(l0_counts) if l0_counts else None,
        "coherence": figures.coherence_histogram(alike.counts, EDGES) if m > 1 else None,
        "all_pairs": every,
        "codes": _codes(diagnosis),
        "duplicates": _duplicates(diagnosis, set(drawn.tolist())),
        "recovery": _recovery(run),
        "trusted": trusted,
        "texts": _texts(run),
        "portraits": _portraits(run, {atom["index"] for atom in atoms}),
        "shots": _shots(run),
        "landscape": _landscape(run),
        "tables": _tables(run),
        "command": run.config.get("command"),
        "count": count,
        "compact": compact,
        "percent": percent,
        "plural": plural,
    }


# From what to trust least to what to trust most, as they are sorted.
_VERDICTS = ("noise", "mixture", "doubtful", "certified")


def _trusted(certificate: Mapping[str, Any] | None, m: int) -> dict[str, Any] | None:
    """Verdicts of `m` atoms, how many there are of each, and what they mean in words."""
    if certificate is None:
        return None
    verdicts = certificate.get("verdicts")
    if not isinstance(verdicts, list) or len(verdicts) != m or set(verdicts) - {*_VERDICTS}:
        raise ArgumentError("certificate", "other atoms", f"a verdict for each of {m}")
    return {
        "verdicts": verdicts,
        "counts": [(name, verdicts.count(name)) for name in reversed(_VERDICTS)],
        "words": str(certificate.get("summary", "")).splitlines(),
        **_of_the_rule(certificate.get("calibration")),
        **_of_all_atoms(certificate.get("whole")),
    }


def _of_the_rule(calibration: Any) -> dict[str, Any]:
    """How often the rule was right where the truth is known; nothing where that isn't said."""
    given = calibration if isinstance(calibration, dict) else {}
    listed = given.get("reliability")
    names = ("said", "true", "atoms")
    bins = [
        each
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, dict) and all(number(each.get(name)) is not None for name in names)
    ]
    noise = given.get("noise")
    said = ""
    if isinstance(noise, dict) and number(noise.get("true")) is not None and noise.get("atoms"):
        said = (
            f"Of {count(noise['atoms'])} atoms that it called noise there, "
            f"{percent(noise['true'])} were right."
        )
    return {"reliability": figures.reliability_figure(bins) if bins else None, "said": said}


_COMPARED = {
    "model": "the model, on rows held out",
    "surrogate": "models of made-up rows with the same mean and covariance, on such rows",
    "shuffled": "models of rows with each column shuffled, on such rows",
    "rows": "as many rows of the data in the place of atoms",
    "gaussian": "as many random atoms",
}


def _of_all_atoms(whole: Any) -> dict[str, Any]:
    """What is said of the dictionary as a whole; what isn't as it should be is left out."""
    given = whole if isinstance(whole, dict) else {}
    curves = []
    for name, what in (("atoms", "atoms"), ("active", "active atoms a row")):
        if isinstance(curve := given.get(name), dict):
            drawn = figures.supported_figure(f"supported-{name}", curve, what)
            curves += [(drawn, str(curve.get("reason", "")))] if drawn else []
    explained = given.get("explained")
    compared = []
    for name, what in _COMPARED.items():
        each = explained.get(name) if isinstance(explained, dict) else None
        if isinstance(each, dict) and (value := number(each.get("value"))) is not None:
            spread = number(each.get("sd")) or 0.0
            compared.append((what, f"{100 * value:.1f} %", f"{100 * spread:.1f} %"))
    asked = given.get("hypotheses")
    keys = ("source", "claim", "value", "needed", "holds")
    hypotheses = [
        (each["source"], each["claim"], _value(each["value"]), each["needed"],
         "yes" if each["holds"] else "no")
        for each in (asked if isinstance(asked, list) else [])
        if isinstance(each, dict) and all(key in each for key in keys)
    ]  # fmt: skip
    return {"curves": curves, "compared": compared, "hypotheses": hypotheses}


def _value(value: Any) -> str:
    known = number(value)
    return str(value) if known is None else compact(known)


def _texts(run: Run) -> dict[str, Any] | None:
    """The texts that fire each atom; what isn't as it should be is left out."""
    section = run.section("texts")
    listed = section.get("atoms")
    if not isinstance(listed, list):
        return None
    atoms = []
    for each in listed:
        if not isinstance(each, dict) or type(each.get("atom")) is not int:
            continue
        parts = {name: _passages(each.get(name)) for name in ("top", "quantiles")}
        if parts["top"]:
            words = dict.fromkeys(passage["token"].strip() for passage in parts["top"])
            atoms.append({"index": each["atom"], "words": ", ".join(words), **parts})
    if not atoms:
        return None
    return {
        "atoms": atoms,
        "rows": number(section.get("n_samples")) or 0,
        "method": str(section.get("method", "")),
    }


def _portraits(run: Run, drawn: set[int]) -> dict[int, dict[str, Any]]:
    """What is told of each drawn atom where it is enlarged; what isn't as it should be is left out.

    Its texts are ready to be shown, but for the numbers of rows and of other atoms.
    """
    listed = run.section("portraits").get("atoms")
    found = {}
    for each in listed if isinstance(listed, list) else []:
        if not isinstance(each, dict) or type(each.get("atom")) is not int:
            continue
        counts, ends = _counts(each.get("histogram")), each.get("range")
        within = [number(end) for end in ends] if isinstance(ends, list) else []
        if each["atom"] not in drawn or not counts or len(within) != 2 or None in within:
            continue
        lost = number(each.get("lost"))
        found[each["atom"]] = {
            "histogram": counts,
            "range": [compact(end) for end in within if end is not None],
            "lost": "" if lost is None else percent(lost),
            "together": [[i, percent(share)] for i, share in _numbered(each.get("together"))],
            "top": [[i, compact(code)] for i, code in _numbered(each.get("top"))],
            "quantiles": [[i, compact(code)] for i, code in _numbered(each.get("quantiles"))],
        }
    return found


def _shots(run: Run) -> dict[str, Any] | None:
    """A sheet of the rows that are drawn; None where what is given is no such thing."""
    from PIL import Image

    given = run.section("portraits").get("rows")
    given = given if isinstance(given, dict) else {}
    numbers, packed = given.get("numbers"), given.get("levels")
    if not isinstance(numbers, list) or not all(type(each) is int for each in numbers):
        return None
    n = run.config["source"].get("n_features") if isinstance(run.config.get("source"), dict) else 0
    shape = picture_shape(given.get("shape"), n) if type(n) is int else None
    if shape is None or not numbers or not isinstance(packed, str):
        return None
    size = len(numbers) * n
    try:
        # No more than there should be, whatever it says.
        raw = zlib.decompressobj().decompress(base64.b64decode(packed, validate=True), size + 1)
    except (ValueError, zlib.error):
        return None
    if len(raw) != size:
        return None
    columns = math.ceil(math.sqrt(len(numbers)))
    (h, w), colours = shape[:2], shape[2:]
    lines = math.ceil(len(numbers) / columns)
    tiles = np.zeros((lines * columns, h, w, *colours), np.uint8)
    tiles[: len(numbers)] = np.frombuffer(raw, np.uint8).reshape(-1, h, w, *colours)
    sheet = tiles.reshape(lines, columns, h, w, *colours).swapaxes(1, 2)
    zoom = _zoom(40, max(h, w))
    return {
        "url": _data_url(_png(Image.fromarray(sheet.reshape(lines * h, columns * w, *colours)))),
        "numbers": numbers,
        "columns": columns,
        "width": w * zoom,
        "height": h * zoom,
    }


def _numbered(value: Any) -> list[tuple[int, float]]:
    """The pairs of a whole number and any number in a list."""
    found = []
    for each in value if isinstance(value, list) else []:
        if isinstance(each, list) and len(each) == 2 and type(each[0]) is int:
            measured = number(each[1])
            if measured is not None:
                found.append((each[0], measured))
    return found


def _passages(value: Any) -> list[dict[str, str]]:
    names = ("document", "before", "token", "after")
    found = []
    for each in value if isinstance(value, list) else []:
        if not isinstance(each, list) or len(each) != 5 or number(each[0]) is None:
            continue
        if all(isinstance(text, str) for text in each[1:]):
            said = {name: _in_a_line(text) for name, text in zip(names, each[1:], strict=True)}
            found.append({"code": compact(each[0]), **said})
    return found


def _in_a_line(text: str) -> str:
    """`text` with every run of space, and what can't be shown, as one space."""
    return re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text))


def _created(run: Run) -> str:
    """The time of the run to the minute, as it was written: 2026-01-01 00:00."""
    text = run.config.get("created")
    return text[:16].replace("T", " ") if isinstance(text, str) else ""


def _diagnosed(run: Run) -> str:
    samples = number(run.section("diagnosis").get("n_samples"))
    return "" if samples is None else f" on {plural(samples, 'sample')}"


def _counts(value: Any) -> list[float]:
    """`value` where it is a histogram that can be drawn, nothing otherwise."""
    counts = [number(v) for v in value] if isinstance(value, list) else []
    known = [v for v in counts if v is not None and v >= 0]
    return known if len(known) == len(counts) else []


def _atoms(
    run: Run, drawn: NDArray[np.intp], alike: Likeness, verdicts: list[str] | None
) -> list[dict[str, Any]]:
    """What the page says of each drawn atom, in the order drawn."""
    dead = run.section("diagnosis").get("dead_atoms")
    if not isinstance(dead, list):
        dead = [] if run.activation is None else np.flatnonzero(run.activation <= 0).tolist()
    listed = _pairs(run.section("diagnosis"))
    twins = {i for first, second, _ in listed for i in (first, second)}
    gone = {i for i in dead if isinstance(i, int)}
    out = []
    for place, i in enumerate(drawn.tolist()):
        activation = None if run.activation is None else float(run.activation[i])
        energy = None if run.energy is None else float(run.energy[i])
        near, cosine = int(alike.nearest[place]), float(alike.cosine[place])
        facts = [f"atom {i}"]
        if activation is not None:
            facts.append("dead" if i in gone else f"active on {percent(activation)}")
        if energy is not None:
            facts.append(f"energy {compact(energy)}")
        if near >= 0:
            facts.append(f"nearest atom {near}, cosine {compact(cosine)}")
        verdict = None if verdicts is None else verdicts[i]
        rank = [] if verdict is None else [_VERDICTS.index(verdict)]
        facts += [] if verdict is None else [verdict]
        out.append(
            {
                "index": i,
                "activation": activation,
                "energy": energy,
                "nearest": near,
                "cosine": cosine,
                # Rounded: what the script sorts by needs no more than what is shown.
                "keys": [float(f"{v or 0:.4g}") for v in (energy, activation, abs(cosine))] + rank,
                "verdict": verdict,
                "dead": i in gone,
                "twin": i in twins,
                "facts": " · ".join(facts),
            }
        )
    return out


def _pictures(run: Run, drawn: NDArray[np.intp]) -> dict[str, Any]:
    """The sheet of tiles and how large the page shows one."""
    from PIL import Image

    shape = run.feature_shape
    assert shape is not None
    columns = math.ceil(math.sqrt(len(drawn)))
    sheet = figures.sprite(run.dictionary[drawn], shape, columns=columns)
    # Arbitrary sides in CSS pixels: few atoms are shown large, thousands still fit a scroll.
    side = next(s for most, s in ((16, 96), (64, 72), (400, 48), (10**9, 32)) if len(drawn) <= most)
    longest = max(shape[:2])
    zoom, tall = _zoom(side, longest), len(drawn) > SCROLLED
    gap = 2 if tall else 4
    across = _across(len(drawn), int((GALLERY + gap) // (shape[1] * zoom + gap)))
    # A gallery that scrolls needs room for its border, padding and scroll bar besides.
    wide = math.ceil(across * (shape[1] * zoom + gap) - gap + (28 if tall else 0))
    return {
        "url": _data_url(_png(Image.fromarray(sheet))),
        "h": shape[0],
        "w": shape[1],
        "colour": len(shape) == 3,
        "columns": columns,
        "rows": math.ceil(len(drawn) / columns),
        "zoom": zoom,
        "wide": wide,
        "zoom_inspector": _zoom(168, longest),
        "zoom_near": _zoom(84, longest),
        "zoom_large": _zoom(300, longest),
        "tall": tall,
    }


def _across(m: int, most: int) -> int:
    """Tiles in a row, of three quarters of `most` to `most`: what fills the last row best."""
    if m <= most:
        return m
    most = max(1, most)
    return min(range(most, math.ceil(0.75 * most) - 1, -1), key=lambda c: -m % c / c)


def _zoom(side: int, longest: int) -> float:
    """CSS pixels a feature: whole where it can be, so that all features are equal squares."""
    return max(1, round(side / longest)) if longest <= side else round(side / longest, 4)


def _features(run: Run, drawn: NDArray[np.intp], atoms: list[dict[str, Any]]) -> dict[str, Any]:
    """Atoms that are no pictures: the matrix as a heat map, and the first ones as bars."""
    from PIL import Image

    rows = drawn[: figures.ROWS]
    image, largest = figures.heat_map(run.dictionary[rows])
    plots = []
    for atom in atoms[:STEM_ROWS]:
        path, width = figures.stems(run.dictionary[atom["index"]])
        plots.append({**atom, "path": path, "width": width})
    n = run.dictionary.shape[1]
    return {
        "url": _data_url(_png(Image.fromarray(image))),
        "rows": len(rows),
        "largest": compact(largest),
        "binned": n > figures.BINS,
        "plots": plots,
        "n": n,
        "stems_binned": bool(plots) and plots[0]["width"] < n,
        # A row at least a pixel high; few rows are drawn thick rather than lost in the page.
        "height": max(min(12 * len(rows), 420), 24) if len(rows) < 105 else min(4 * len(rows), 560),
    }


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _pairs(diagnosis: dict[str, Any]) -> list[tuple[int, int, float | None]]:
    value = diagnosis.get("duplicate_atoms")
    if not isinstance(value, list):
        return []
    return [
        (int(p[0]), int(p[1]), number(p[2]) if len(p) > 2 else None)
        for p in value
        if isinstance(p, list) and len(p) >= 2 and all(number(v) is not None for v in p[:2])
    ]


def _duplicates(diagnosis: dict[str, Any], drawn: set[int]) -> dict[str, Any] | None:
    pairs = _pairs(diagnosis)
    if not pairs:
        return None
    most = 50
    pairs.sort(key=lambda p: -abs(p[2] or 0))
    rows = [
        {"first": i, "second": j, "cosine": compact(c, 4), "drawn": i in drawn and j in drawn}
        for i, j, c in pairs[:most]
    ]
    return {"rows": rows, "total": len(pairs)}


def _codes(diagnosis: dict[str, Any]) -> dict[str, Any] | None:
    """The codes of each way to infer them side by side, by the metrics that all have."""
    codes = diagnosis.get("codes")
    if not isinstance(codes, dict):
        return None
    kinds = {k: v for k, v in codes.items() if isinstance(v, dict)}
    shown = (
        ("explained_variance", "Explained variance", percent),
        ("row_explained", "Of the middle row\u2019s square", percent),
        ("mse", "Mean squared error", compact),
        ("l0", "Active a sample", compact),
    )
    rows = [
        (label, [say(kind.get(key)) for kind in kinds.values()])
        for key, label, say in shown
        if any(number(kind.get(key)) is not None for kind in kinds.values())
    ]
    names = {
        "encoder": "Encoder",
        "least_squares": "Least squares on the support",
        "pursuit": "Subspace pursuit",
        "omp": "Orthogonal matching pursuit",
        "iht": "Iterative hard thresholding",
    }
    return {"kinds": [names.get(k, str(k)) for k in kinds], "rows": rows} if rows else None


def _recovery(run: Run) -> dict[str, Any] | None:
    """The section on the known truth; None where there is none."""
    recovery = run.section("recovery")
    if not recovery:
        return None
    found = recovery.get("recovered")
    scores = found if isinstance(found, dict) else {}
    cosines = recovery.get("cosines")
    values = [number(c) for c in cosines] if isinstance(cosines, list) else []
    known = [c for c in values if c is not None]
    rows: list[tuple[str, str, str]] = [
        (f"Recovered at |cosine| ≥ {key}", percent(scores[key]), "")
        for key in sorted(scores, key=str)
    ]
    chance, mcc = number(recovery.get("mcc_chance")), number(recovery.get("mcc"))
    at_chance = f"chance alone gives {compact(chance)}" if chance is not None else ""
    before = recovery.get("before_polish")
    plateau = number(before.get("mean_distance")) if isinstance(before, dict) else None
    polished = f"{compact(plateau)} before the polish" if plateau is not None else ""
    rows += [
        (label, compact(recovery[key]), note)
        for key, label, note in (
            ("mean_distance", "Mean distance to the true atom", polished),
            ("max_distance", "Largest distance", ""),
            (
                "mcc_corrected",
                "MCC, corrected for chance",
                "0 is chance, 1 is perfect",
            ),
            ("mcc", "MCC (mean |cosine| of the matches)", at_chance if mcc is not None else ""),
        )
        if number(recovery.get(key)) is not None
    ]
    flipped = sum(c < 0 for c in known)
    support = recovery.get("support")
    names = (
        ("exact", "Samples with the exact support"),
        ("signed_exact", "… and all signs right"),
        ("precision", "Precision of the support"),
        ("recall", "Recall of the support"),
        ("f1", "F1 of the support"),
    )
    return {
        "figure": figures.recovery_figure(known) if known else None,
        "rows": rows,
        "flipped": flipped,
        "support": (
            [
                (label, percent(support[k]))
                for k, label in names
                if number(support.get(k)) is not None
            ]
            if isinstance(support, dict)
            else []
        ),
    }


def _landscape(run: Run) -> dict[str, Any] | None:
    """The section on the loss around the dictionary; None where it isn't known."""
    record = run.section("landscape")
    if not record:
        return None
    try:
        return {"svgs": landscape_svgs(record), "words": landscape_words(record)}
    except (KeyError, TypeError, ValueError, IndexError, ArithmeticError):
        return None  # a file that another hand has written to


def _tables(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Everything in the configuration that the page doesn't show elsewhere."""
    titles = {
        "source": "Data",
        "model": "Model",
        "recipe": "Recipe",
        "preprocessing": "Preprocessing",
        "seconds": "Time",
        "diagnosis": "Diagnosis",
        "versions": "Versions",
    }
    shown = {"command", "recovery", "files", "checksum", "landscape", "texts", "portraits", *titles}
    tables = []
    for key, title in titles.items():
        value = run.config.get(key)
        if value in (None, {}, []):
            continue
        if key == "seconds" and isinstance(value, dict):
            rows = [(str(k), duration(v)) for k, v in value.items()]
        else:
            rows = list(_flat(value, "" if isinstance(value, dict) else key))
        tables.append((title, rows))
    rest = {key: value for key, value in run.config.items() if key not in shown}
    tables.append(("Run", list(_flat(rest, ""))))
    return [(title, rows) for title, rows in tables if rows]


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Nested mappings as dotted names; long lists by their beginning and length."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and (len(value) > 8 or any(isinstance(v, dict) for v in value)):
        start = ", ".join(map(_say, value[:4]))
        yield name, f"{start}, … ({plural(len(value), 'value')})"
    elif isinstance(value, list):
        yield name, " × ".join(map(_say, value)) if name == "feature_shape" else _say(value)
    else:
        yield name, _say(value)


def _say(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        parts = (f"({_say(v)})" if isinstance(v, list) else _say(v) for v in value)
        return ", ".join(parts) if value else "none"
    return str(value)[:500]
