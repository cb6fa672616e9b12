"""Numbers and sentences in plain, honest words."""

import pytest

from run_folders import KNOWN_TRUTH
from shoal.report.run import read_run
from shoal.report.words import chips, compact, count, duration, headline, percent, settling, tiles


def plain(text: str) -> str:
    """Without the no-break spaces, which are the page's business."""
    return text.replace("\u202f", " ").replace("\u00a0", " ").replace("\u2212", "-")


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.71, "71 %"),
        (0.9966, "99.7 %"),
        (0.99996, "99.996 %"),
        (1 - 1e-9, "over 99.9999 %"),
        (1e-9, "under 0.0001 %"),
        (0.0312, "3.1 %"),
        (-0.12, "-12 %"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_percent_says_0_and_100_only_where_it_is(fraction, text):
    assert plain(percent(fraction)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (8, "8"), (8.004, "8"), (0.01234, "0.0123"), (-0.5, "-0.5"), (12345.6, "12 346"),
     (3.2e-7, "3.20e-7"), (None, "–"), (True, "–"), (100, "100"), (1000, "1 000")],
)  # fmt: skip
def test_compact(value, text):
    assert plain(compact(value)) == text


def test_count_and_duration():
    assert plain(count(1234567)) == "1 234 567"
    said = [plain(duration(s)) for s in (0.04, 31.2, 59.9, 131, 3780)]
    assert said == ["0.04 s", "31 s", "1 min", "2 min 11 s", "1 h 3 min"]


def test_headline_without_truth_says_only_that_it_is_unknown(write_run):
    def change(config):
        config["diagnosis"]["duplicate_atoms"] = [[0, 1, 0.999], [2, 3, -0.998]]

    first, *rest = headline(read_run(write_run(change=change)))
    assert plain(first) == (
        "12 atoms from 100 000 samples of 9 features explain 71 % of the variance with "
        "8 active atoms a sample; none is dead; 2 pairs are near-duplicates."
    )
    assert len(rest) == 1
    assert "No ground truth" in rest[0]
    assert "recover" not in " ".join(rest).lower()


def test_headline_with_truth(write_run):
    def all_found(config):
        config["recovery"] = KNOWN_TRUTH

    def some_found(config):
        config["recovery"] = {**KNOWN_TRUTH, "recovered": {"0.95": 0.75}}

    _, trust = headline(read_run(write_run(name="all", change=all_found)))
    assert plain(trust) == (
        "All 4 true atoms were recovered at |cosine| ≥ 0.95 (mean distance 0.012)."
    )
    run = read_run(write_run(name="some", change=some_found))
    assert plain(headline(run)[1]).startswith("3 of the 4 true atoms (75 %) were recovered")
    assert ("bad", "75 % recovered at 0.95") in [(c.tone, plain(c.text)) for c in chips(run)]


@pytest.mark.parametrize(
    ("dead", "text", "tone"),
    [([], "none is dead", "good"), ([3], "1 is dead", "bad"), (list(range(12)), "all 12", "bad")],
)
def test_dead_atoms_in_words(write_run, dead, text, tone):
    run = read_run(write_run(change=lambda config: config["diagnosis"].update(dead_atoms=dead)))
    assert text in plain(headline(run)[0])
    assert tone in [chip.tone for chip in chips(run) if "dead" in chip.text]


def test_a_fit_worse_than_the_mean_is_no_success(write_run):
    run = read_run(write_run(change=lambda c: c["diagnosis"].update(explained_variance=-0.3)))
    assert "none of the variance" in headline(run)[0]
    assert "bad" in [chip.tone for chip in chips(run) if "mean" in chip.text]


@pytest.mark.parametrize(
    ("encoder", "pursuit", "said"), [(0.6, 0.9, True), (0.6, 0.63, False), (-1.4, 0.84, True)]
)
def test_what_a_pursuit_explains_is_said_where_it_is_more(write_run, encoder, pursuit, said):
    def change(config):
        config["diagnosis"]["explained_variance"] = encoder
        config["diagnosis"]["codes"] = {"pursuit": {"explained_variance": pursuit}}

    sentences = [plain(each) for each in headline(read_run(write_run(change=change)))]
    found = [each for each in sentences if "a pursuit explains" in each]
    assert len(found) == said
    assert all(f"{100 * pursuit:.0f} %" in each for each in found)


def test_settling_sees_a_loss_that_still_falls_and_ignores_the_polish():
    falling = [{"loss": 100.0 - i} for i in range(50)]
    assert settling(falling) == pytest.approx(53 / 58 - 1)
    flat = [{"loss": 1.0}] * 30 + [{"loss": 0.1, "phase": "polish"}] * 10
    assert settling(flat) == 0
    assert settling(falling[:19]) is None


def test_tiles_leave_out_what_is_unknown(write_run):
    def bare(config):
        config["diagnosis"], config["seconds"] = {}, None

    run = read_run(write_run(change=bare, atom_activation=None))
    assert [tile.label for tile in tiles(run)] == ["Atoms"]


def test_the_polish_has_the_last_word_on_settling(write_run):
    falling = [{"step": i, "phase": "descent", "loss": 60.0 - i} for i in range(30)]
    rounds = [{"step": i, "phase": "polish", "loss": 0.1} for i in range(1, 4)]

    def said(name, rows, most):
        def limit(config):
            config["recipe"] = {"polish": {"max_rounds": most}}

        run = read_run(write_run(name=name, rows=rows, change=limit))
        return " ".join(plain(chip.text) for chip in chips(run))

    assert "Loss still falling" in said("plain", falling, 30)
    assert "Polish has settled" in said("settled", falling + rounds, 30)
    assert "Polish cut off after 3 rounds" in said("cut", falling + rounds, 3)
