"""The page and the picture of a run: whole, one file, safe, atomic, the same each time."""

import base64
import hashlib
import io
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from run_folders import KNOWN_TRUTH
from shoal.report import figures, page, write_atoms, write_report
from shoal.vocabulary import RunError

VOID = {"meta", "img", "br", "input", "link", "hr"}


class Page(HTMLParser):
    """A page read strictly: every element that opens closes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words += data

    def all(self, tag, **attributes):
        return [a for t, a in self.tags if t == tag and attributes.items() <= a.items()]


def read(path) -> Page:
    found = Page(path.read_text(encoding="utf-8"))
    found.words = re.sub(r"\s+", " ", found.words.replace("\u2212", "-"))
    return found


def atoms_on(found: Page) -> list[int]:
    return [int(a["data-i"] or 0) for a in found.all("button") if "data-i" in a]


@pytest.mark.parametrize("shape", [[3, 3], None, [1, 3, 3]])
@pytest.mark.parametrize("truth", [None, KNOWN_TRUTH])
def test_the_page_is_one_whole_file_without_addresses(write_run, shape, truth):
    def change(config):
        config["recovery"] = truth
        config["diagnosis"]["duplicate_atoms"] = [[0, 1, 0.9997]]
        config["diagnosis"]["dead_atoms"] = [2]

    folder = write_run(shape=shape, change=change)
    path = write_report(folder)
    assert path == folder / "report.html"
    found = read(path)
    assert not re.search(r"https?:|//\w+\.|@import|url\((?!data:|#)", found.text)
    for _, attributes in found.tags:
        for name in ("src", "href", "action", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#"))
    assert not found.all("link")
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    labelled = [a["aria-labelledby"] for _, a in found.tags if "aria-labelledby" in a]
    assert set(labelled) <= set(ids)
    assert all(a.get("alt") for a in found.all("img"))
    assert all(a.get("aria-label") for a in found.all("svg", role="img"))


def test_the_page_holds_the_key_figures(write_run):
    found = read(write_report(write_run(shape=[3, 3])))
    for words in (
        "12 atoms from 100 000 samples of 9 features explain 71 % of the variance",
        "2 min 11 s",
        "0.456",
        "Least squares on the support",
        "83 %",
        "shoal fit sample:patches --atoms 256",
        "a_new_key",
        "shown anyway",
        "schedule.kind",
        "torch",
        "2.8.0",
        "preprocessed space (whiten)",
        "Polish has settled",
    ):
        assert words in found.words
    assert len(found.all("svg", role="img")) == 5  # loss, variance, activation, L0, likeness


def test_without_a_known_truth_nothing_is_said_about_recovery(write_run):
    found = read(write_report(write_run()))
    assert "recover" not in found.words.lower()
    assert "No ground truth is known" in found.words


def test_with_a_known_truth_it_is_all_there(write_run):
    found = read(write_report(write_run(change=lambda c: c.update(recovery=KNOWN_TRUTH))))
    for words in (
        "All 4 true atoms were recovered at |cosine| ≥ 0.95 (mean distance 0.012).",
        "Recovered at |cosine| ≥ 0.99",
        "chance alone gives 0.321",
        "0.981",
        "Precision of the support",
        "90 %",
        "1 matched atom with the opposite sign",
    ):
        assert words in found.words


def test_the_gallery_holds_every_atom_once_by_energy(write_run):
    energy = np.arange(12, dtype=np.float32)
    found = read(write_report(write_run(shape=[3, 3], atom_energy=energy)))
    assert atoms_on(found) == list(range(11, -1, -1))
    first = next(a for a in found.all("button") if a.get("data-i") == "11")
    assert re.match(r"atom 11 · active on 20\s% · energy 11 · nearest atom", first["title"] or "")


def test_without_a_script_the_inspector_shows_the_first_atom_and_its_nearest(write_run):
    found = read(write_report(write_run(shape=[3, 3])))
    cells = {a["data-i"]: a for a in found.all("button") if "data-i" in a}
    first = next(iter(cells.values()))
    spans = [a for a in found.all("span") if "tile" in (a.get("class") or "")]
    this, other = spans[0]["style"], spans[1]["style"]
    assert this.startswith(first["style"])
    assert other.startswith(cells[first["data-n"]]["style"])
    assert this != other


def test_the_nearest_atom_has_its_sign_and_pairs_count_once():
    rng = np.random.default_rng(0)
    dictionary = rng.normal(size=(9, 5)).astype(np.float32)
    dictionary[7] = -2 * dictionary[3]
    dictionary[4] = 0
    order = rng.permutation(9)
    alike = page.likeness(dictionary, order)
    place = order.tolist().index
    assert alike.nearest[place(3)] == 7
    assert alike.cosine[place(3)] == pytest.approx(-1)
    assert alike.nearest[place(4)] == -1
    assert alike.counts.sum() == 9 * 8 / 2
    unit = dictionary / np.maximum(np.linalg.norm(dictionary, axis=1, keepdims=True), 1e-9)
    upper = np.abs(unit @ unit.T)[np.triu_indices(9, 1)]
    np.testing.assert_array_equal(alike.counts, np.histogram(np.minimum(upper, 1), page.EDGES)[0])


def test_likeness_in_blocks_is_likeness_at_once(monkeypatch):
    dictionary = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    rows = np.arange(30)[::-1].copy()
    whole = page.likeness(dictionary, rows)
    monkeypatch.setattr(page, "BLOCK", 7)
    blocks = page.likeness(dictionary, rows)
    np.testing.assert_array_equal(blocks.nearest, whole.nearest)
    np.testing.assert_array_equal(blocks.counts, whole.counts)


HOSTILE = "</script><script>alert('x')</script>&\"<img src=//e.x onerror=y>"


def test_names_are_text_wherever_they_stand(write_run):
    def change(config):
        config["source"]["name"] = HOSTILE
        config["command"] = HOSTILE
        config["created"] = HOSTILE
        config["preprocessing"]["kind"] = HOSTILE
        config["model"][HOSTILE] = [HOSTILE]
        config["diagnosis"]["codes"] = {HOSTILE: {"mse": 1.0}}
        config["recovery"] = {**KNOWN_TRUTH, "recovered": {HOSTILE: 0.5}}

    found = read(write_report(write_run(change=change)))
    assert len(found.all("script")) == 1
    assert not [a for a in found.all("img") if "onerror" in a]
    assert "<script>alert" not in found.text
    assert found.words.count("alert('x')") >= 6


def test_the_page_lets_its_own_script_run_and_nothing_else(write_run):
    found = read(write_report(write_run()))
    (policy,) = (
        each["content"]
        for each in found.all("meta")
        if each.get("http-equiv") == "Content-Security-Policy"
    )
    text = found.text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "http" not in policy


def test_the_same_run_gives_the_same_bytes(write_run):
    folder = write_run(shape=[3, 3], change=lambda c: c.update(recovery=KNOWN_TRUTH))
    first = [write(folder).read_bytes() for write in (write_report, write_atoms)]
    second = [write(folder).read_bytes() for write in (write_report, write_atoms)]
    assert first == second


def test_the_users_matplotlib_settings_change_nothing_and_are_left_alone(write_run):
    import matplotlib

    folder = write_run()
    plain = write_report(folder).read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "lines.linewidth": 9}):
        assert write_report(folder).read_bytes() == plain
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.parametrize("stage", ["render", "write", "replace"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_report_and_nothing_else(write_run, monkeypatch, stage, error):
    folder = write_run()
    (folder / "report.html").write_text("the old one")
    before = sorted(os.listdir(folder))

    def fail(*args, **kwargs):
        raise error

    if stage != "render":
        monkeypatch.setattr(page, "_render", lambda run, certificate: "a new one")
    target = {"render": (figures, "l0_histogram"), "write": (os, "fsync")}
    monkeypatch.setattr(*target.get(stage, (os, "replace")), fail)
    with pytest.raises(error):
        write_report(folder)
    assert (folder / "report.html").read_text() == "the old one"
    assert sorted(os.listdir(folder)) == before


def test_a_folder_that_cannot_be_written_to_is_a_run_error(write_run, monkeypatch):
    def fail(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    folder = write_run()
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RunError, match=r"atoms\.png: can.t be written \(Permission denied\)"):
        write_atoms(folder)
    assert not [name for name in os.listdir(folder) if "atoms" in name]


def test_importing_the_room_loads_neither_matplotlib_nor_jinja():
    heavy = "{'matplotlib', 'jinja2', 'PIL', 'torch'}"
    code = f"import sys, shoal.report; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pyplot_is_never_loaded(write_run):
    code = (
        "import sys; from shoal.report import *; "
        "write_report(sys.argv[1]); write_atoms(sys.argv[1]); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(write_run())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def only_the_format(config):
    for key in set(config) - {"format", "format_version"}:
        del config[key]


def all_null(config):
    for key in set(config) - {"format", "format_version"}:
        config[key] = None


def odd_types(config):
    for key in set(config) - {"format", "format_version"}:
        config[key] = ["a", 1, {"b": None}]


def odd_values(config):
    for section in ("source", "diagnosis", "seconds", "model"):
        config[section] = dict.fromkeys(config[section], "odd")
    config["recovery"] = dict.fromkeys(KNOWN_TRUTH, "odd")


@pytest.mark.parametrize("change", [only_the_format, all_null, odd_types, odd_values])
def test_whatever_is_missing_or_odd_the_page_is_written(write_run, change):
    folder = write_run(change=change, rows=[], atom_activation=None, atom_energy=None)
    found = read(write_report(folder))
    assert "12 atoms" in found.words
    assert atoms_on(found)
    assert write_atoms(folder).exists()


@pytest.mark.parametrize(
    ("m", "n", "shape"),
    [(1, 1, None), (1, 1, [1, 1]), (1, 9, [3, 3]), (3, 1, None), (2, 3, [1, 1, 3]), (5, 2, [2, 1])],
)
def test_the_smallest_runs(write_run, m, n, shape):
    folder = write_run(m=m, n=n, shape=shape, rows=[])
    found = read(write_report(folder))
    assert sorted(atoms_on(found)) == list(range(m))
    assert "How it was learnt" not in found.words
    assert (m > 1) == ("How alike the atoms are" in found.words)
    assert write_atoms(folder).stat().st_size > 50


def test_a_run_whose_atoms_are_all_dead_and_zero(write_run):
    def change(config):
        config["diagnosis"] |= {"dead_atoms": list(range(12)), "l0": 0.0, "l0_histogram": [50]}

    nothing = np.zeros(12, np.float32)
    tensors = {"atom_activation": nothing, "atom_energy": nothing}
    folder = write_run(shape=[3, 3], change=change, dictionary=np.zeros((12, 9)), **tensors)
    found = read(write_report(folder))
    assert "all 12 are dead" in found.words
    assert "nearest atom" not in found.text
    assert (np.asarray(Image.open(write_atoms(folder)))[0, 0] == 128).all()


def test_a_diverged_dictionary_is_drawn_and_said(write_run):
    dictionary = np.ones((12, 9), np.float32)
    dictionary[3, 2] = np.nan
    found = read(write_report(write_run(dictionary=dictionary)))
    assert "Diverged: 1 atom not finite" in found.words


def test_atoms_png_stands_by_energy_and_has_its_size(write_run):
    rng = np.random.default_rng(3)
    dictionary = rng.normal(size=(9, 144)).astype(np.float32)
    energy = np.array([1, 2, 3, 4, 9, 5, 6, 7, 8], np.float32)
    folder = write_run(9, 144, [12, 12], dictionary=dictionary, atom_energy=energy)
    image = np.asarray(Image.open(write_atoms(folder)))
    assert image.shape == (3 * 60 + 2 * 2, 3 * 60 + 2 * 2)
    strongest = dictionary[4].reshape(12, 12)
    expected = 128 + 127 * strongest / np.abs(strongest).max()
    np.testing.assert_allclose(image[2:60:5, 2:60:5], expected, atol=0.51)


def test_more_atoms_than_are_drawn_are_counted_on_the_page_and_under_the_picture(
    write_run, monkeypatch
):
    monkeypatch.setattr(page, "PIXELS", 4 * 9)
    folder = write_run(shape=[3, 3])
    found = read(write_report(folder))
    assert len(atoms_on(found)) == 4
    assert "The first 4 of 12 atoms by energy." in found.words
    image = Image.open(write_atoms(folder))
    assert image.size == (2 * 60 + 2, 2 * 60 + 2 + 26)
    assert np.asarray(image)[-26:].min() < 128  # the caption's ink


def test_a_large_dictionary_stays_a_small_page(write_run):
    folder = write_run(1024, 64, [8, 8])
    report = write_report(folder)
    assert report.stat().st_size < 1_000_000
    assert len(atoms_on(read(report))) == 1024
    folder = write_run(1200, 700, name="features")
    report = write_report(folder)
    assert report.stat().st_size < 2_500_000
    found = read(report)
    assert len(atoms_on(found)) == page.STEM_ROWS
    assert "The first 48 of 1 200 atoms by energy." in found.words


def test_the_sheet_in_the_page_has_the_pixels_of_the_atoms(write_run):
    import base64

    dictionary = np.random.default_rng(0).normal(size=(12, 9)).astype(np.float32)
    text = write_report(write_run(shape=[3, 3])).read_text()
    match = re.search(r"url\(data:image/png;base64,([^)]+)\)", text)
    assert match
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(match[1]))))
    tile = re.search(r'data-i="5"[^>]*--x:(\d+);--y:(\d+)', text)
    assert tile
    x, y = 5 * int(tile[1]) + 1, 5 * int(tile[2]) + 1
    expected = 128 + 127 * dictionary[5].reshape(3, 3) / np.abs(dictionary[5]).max()
    np.testing.assert_allclose(sheet[y : y + 3, x : x + 3], expected, atol=0.51)
