"""Numbers and findings of a run in plain words: the sentences, tiles and chips of the page.

Nothing here judges what the run can't know: without a known truth no sentence speaks of
the true atoms, except to say that they are unknown.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shoal.report.run import Run, number

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Chip",
    "Tile",
    "chips",
    "compact",
    "count",
    "few_rows",
    "headline",
    "percent",
    "phases",
    "tiles",
]

GROUP = "\u202f"  # narrow no-break space between groups of three digits
NBSP = "\u00a0"
MINUS = "\u2212"
# The threshold of the headline; the middle one of the three that a run is scored at.
RECOVERED_AT = "0.95"
# Arbitrary: a change of the mean loss below 1 % between the last two tenths of the descent
# can't be seen on the curve.
SETTLED = 0.01


class Chip(NamedTuple):
    """One verdict: its tone is ``good``, ``warn``, ``bad`` or ``plain``."""

    tone: str
    text: str


class Tile(NamedTuple):
    """One key figure; `note` explains it in a line."""

    label: str
    value: str
    note: str


def count(value: float) -> str:
    """A whole number with its thousands apart: 100 000."""
    return f"{round(value):,}".replace(",", GROUP).replace("-", MINUS)


def compact(value: Any, digits: int = 3) -> str:
    """A number to `digits` significant digits; a dash where there is none."""
    value = number(value)
    if value is None:
        return "–"
    if value != 0 and (abs(value) < 1e-4 or abs(value) >= 1e7):
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", MINUS)
    if abs(value) >= 10**digits:
        return count(value)
    places = digits if value == 0 else max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{places}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", MINUS)


def percent(fraction: Any) -> str:
    """A fraction as a percentage that says 0 or 100 only where it is exactly that."""
    fraction = number(fraction)
    if fraction is None:
        return "–"
    value = 100 * fraction
    for places in (0, 1, 2, 3, 4):
        text = f"{value:.{places}f}"
        ends = float(text) in (0.0, 100.0) and float(text) != value
        # One more digit near either end, where the difference is the news.
        coarse = places == 0 and (0 < abs(value) < 9.95 or 95 <= value < 100)
        if not ends and not coarse:
            break
    else:
        text = f"under{NBSP}0.0001" if abs(value) < 1 else f"over{NBSP}99.9999"
    return text.replace("-", MINUS) + NBSP + "%"


def duration(seconds: Any) -> str:
    """Seconds as a person says them: 31 s, 2 min 11 s, 1 h 3 min."""
    seconds = number(seconds)
    if seconds is None:
        return "–"
    if seconds < 59.5:
        return f"{compact(seconds, 2 if seconds >= 1 else 1)}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min" + (f" {rest}{NBSP}s" if rest else "")
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{NBSP}h" + (f" {minutes}{NBSP}min" if minutes else "")


def plural(n: float, one: str, many: str | None = None) -> str:
    """``n`` and its noun: 1 atom, 2 atoms."""
    return f"{count(n)}{NBSP}{one if n == 1 else many or one + 's'}"


def _diagnosis_list(run: Run, name: str) -> list[Any] | None:
    value = run.section("diagnosis").get(name)
    return value if isinstance(value, list) else None


def dead_count(run: Run) -> int | None:
    """How many atoms are never active; None where nobody counted."""
    dead = _diagnosis_list(run, "dead_atoms")
    if dead is not None:
        return len(dead)
    return None if run.activation is None else int((run.activation <= 0).sum())


def headline(run: Run) -> list[str]:
    """What was learnt and how far it can be trusted: one to four sentences.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of str
        The first sentence is the headline; the others stand under it.
    """
    m, n = run.dictionary.shape
    diagnosis = run.section("diagnosis")
    samples = number(run.section("source").get("n_samples"))
    explained = number(diagnosis.get("explained_variance"))
    l0 = number(diagnosis.get("l0"))
    dead = dead_count(run)
    duplicates = _diagnosis_list(run, "duplicate_atoms")

    what = plural(m, "atom")
    data = f"{plural(samples, 'sample')} of " if samples is not None else "samples of "
    data += plural(n, "feature")
    if explained is None:
        text = f"{what} {'was' if m == 1 else 'were'} learnt from {data}"
        with_active = " with "
    elif explained <= 0:
        text = f"{what} from {data} explain{'s' if m == 1 else ''} none of the variance"
        with_active = ", with "
    else:
        verb = "explains" if m == 1 else "explain"
        text = f"{what} from {data} {verb} {percent(explained)} of the variance"
        with_active = " with "
    if l0 is not None:
        text += f"{with_active}{compact(l0, 2)}{NBSP}active atom{'' if l0 == 1 else 's'} a sample"
    if dead is not None:
        if dead == m:
            text += "; it is dead" if m == 1 else f"; all {count(m)} are dead"
        elif dead == 0:
            text += "; none is dead" if m > 1 else ""
        else:
            text += f"; {count(dead)} {'is' if dead == 1 else 'are'} dead"
    if duplicates:
        k = len(duplicates)
        text += (
            f"; {plural(k, 'pair')} {'is a near-duplicate' if k == 1 else 'are near-duplicates'}"
        )
    few = few_rows(diagnosis)
    notes = run.config.get("notes")
    said = [str(each) for each in notes] if isinstance(notes, list) else []
    said = [each if each.endswith(".") else each + "." for each in said]
    about = [] if few is None else [few]
    return [text + ".", *_by_pursuit(diagnosis, explained), *about, *said, *_trust(run)]


# Arbitrary: from this share of the square on, a twentieth of the rows have the say in every mean.
_MOST_OF_IT = 0.5


def few_rows(diagnosis: dict[str, Any]) -> str | None:
    """That a few rows hold most of the square, and how well the others are explained; or None."""
    longest = diagnosis.get("longest_rows")
    if not isinstance(longest, dict):
        return None
    rows, square = number(longest.get("rows")), number(longest.get("square"))
    if rows is None or square is None or square < _MOST_OF_IT:
        return None
    text = f"{percent(square)} of the square is in {percent(rows)} of the rows"
    middle = number(diagnosis.get("row_explained"))
    if middle is not None:
        text += f"; of the middle row\u2019s own square {percent(middle)} is explained"
    return text + "."


def _by_pursuit(diagnosis: dict[str, Any], explained: float | None) -> list[str]:
    """What a pursuit explains, where it is clearly more than the encoder's own codes do."""
    codes = diagnosis.get("codes")
    pursuit = codes.get("pursuit") if isinstance(codes, dict) else None
    better = number(pursuit.get("explained_variance")) if isinstance(pursuit, dict) else None
    # Arbitrary: less is a matter of the second digit.
    if better is None or explained is None or better < explained + 0.05:
        return []
    return [
        "That is by the encoder\u2019s own codes: with as many active atoms a pursuit explains "
        f"{percent(better)}."
    ]


def _trust(run: Run) -> list[str]:
    recovery = run.section("recovery")
    if not recovery:
        return [
            "No ground truth is known for this data: these numbers say how well the atoms fit, "
            "not whether they are the true ones."
        ]
    sentences = []
    share = recovered_share(recovery)
    if share is not None:
        fraction, threshold = share
        total = len(recovery["cosines"]) if isinstance(recovery.get("cosines"), list) else None
        distance = number(recovery.get("mean_distance"))
        aside = f" (mean distance {compact(distance, 2)})" if distance is not None else ""
        at = f"recovered at |cosine|{NBSP}≥{NBSP}{threshold}{aside}."
        if total:
            found = round(fraction * total)
            if found == total:
                some = f"All {count(total)} true atoms were" if total > 1 else "The true atom was"
            elif found == 0:
                some = f"None of the {count(total)} true atoms was"
            else:
                verb = "was" if found == 1 else "were"
                some = f"{count(found)} of the {count(total)} true atoms "
                some += f"({percent(fraction)}) {verb}"
        else:
            some = f"{percent(fraction)} of the true atoms were"
        sentences.append(f"{some} {at}")
    return sentences


def recovered_share(recovery: dict[str, Any]) -> tuple[float, str] | None:
    """The recovered fraction at the headline's threshold, or at the nearest one scored."""
    scores = recovery.get("recovered")
    if not isinstance(scores, dict):
        return None
    known = {key: number(value) for key, value in scores.items() if number(value) is not None}
    if not known:
        return None
    best = min(known, key=lambda key: (abs(_threshold(key) - float(RECOVERED_AT)), key))
    value = known[best]
    assert value is not None
    return value, best


def _threshold(key: str) -> float:
    try:
        return float(key)
    except ValueError:
        return math.inf


def chips(run: Run) -> list[Chip]:
    """The verdicts under the headline, each from one number of the run."""
    m = len(run.dictionary)
    out = []
    if run.broken_atoms:
        out.append(Chip("bad", f"Diverged: {plural(run.broken_atoms, 'atom')} not finite"))
    recovery = run.section("recovery")
    if recovery:
        share = recovered_share(recovery)
        if share is not None:
            fraction, threshold = share
            # Arbitrary: below nine tenths something is wrong, short of all something is left.
            tone = "good" if fraction >= 1 else "warn" if fraction >= 0.9 else "bad"
            out.append(Chip(tone, f"{percent(fraction)} recovered at {threshold}"))
    else:
        out.append(Chip("plain", "Truth unknown: fit measured, not correctness"))
    explained = number(run.section("diagnosis").get("explained_variance"))
    if explained is not None:
        if explained <= 0:
            out.append(Chip("bad", "No better than the mean of the data"))
        else:
            out.append(Chip("plain", f"{percent(explained)} explained"))
    dead = dead_count(run)
    if dead is not None:
        if dead == 0:
            out.append(Chip("good", "No dead atoms"))
        else:
            # Arbitrary: one atom in twenty is where a smaller dictionary would do as well.
            tone = "bad" if dead > m / 20 else "warn"
            out.append(Chip(tone, f"{plural(dead, 'dead atom')} ({percent(dead / m)})"))
    duplicates = _diagnosis_list(run, "duplicate_atoms")
    if duplicates is not None and m > 1:
        if duplicates:
            out.append(Chip("warn", plural(len(duplicates), "near-duplicate pair")))
        else:
            out.append(Chip("good", "No near-duplicates"))
    saturated = number(run.section("usage").get("saturated_units"))
    if saturated:
        text = (
            f"{plural(saturated, 'unit')} of {count(m)} without a penalty: mean code 0.99 or more"
        )
        out.append(Chip("bad" if saturated > m / 20 else "warn", text))
    out += _endings(run)
    return out


def _endings(run: Run) -> list[Chip]:
    """How training ended: what comes last decides, but a phase that was cut off is said."""
    recipe = run.section("recipe")
    out = []
    refined = [r for r in run.history if r.get("phase") == "refinement"]
    rounds = [r for r in run.history if r.get("phase") == "polish"]
    finishing = [r for r in run.history if r.get("phase") == "finish"]
    if finishing:
        progress = number(finishing[-1].get("progress"))
        if progress is not None and progress < 1:
            out.append(Chip("warn", "Finish ended with the data, before its last step"))
        else:
            out.append(Chip("good", "Finish has made all its steps"))
    elif refined:
        before, limit = number(recipe.get("n_steps")), _limit(recipe, "refinement", "n_steps")
        steps, progress = number(refined[-1].get("step")), number(refined[-1].get("progress"))
        if None not in (before, limit, steps) and steps - before >= limit:  # type: ignore[operator]
            out.append(Chip("warn", f"Refinement cut off after {plural(limit or 0, 'step')}"))
        elif progress is not None and progress < 1:
            out.append(Chip("warn", "Refinement ended with the data, before it had settled"))
        elif not rounds:
            out.append(Chip("good", "Refinement has settled"))
    if rounds:
        limit = _limit(recipe, "polish", "max_rounds")
        if limit is not None and (number(rounds[-1].get("step")) or len(rounds)) >= limit:
            out.append(Chip("warn", f"Polish cut off after {plural(limit, 'round')}"))
        else:
            out.append(Chip("good", "Polish has settled"))
    change = settling(run.history)
    if not refined and not rounds and change is not None:
        if abs(change) < SETTLED:
            out.append(Chip("good", "Loss has settled"))
        elif change < 0:
            out.append(Chip("warn", f"Loss still falling: {percent(change)} at the end"))
        else:
            out.append(Chip("warn", f"Loss rising: +{percent(change)} at the end"))
    return out


def _limit(recipe: dict[str, Any], phase: str, name: str) -> float | None:
    """The most steps or rounds that a phase was given."""
    settings = recipe.get(phase)
    return number(settings.get(name)) if isinstance(settings, dict) else None


PHASES = {
    "descent": "in the descent they are the encoder\u2019s own",
    "refinement": (
        "in the refinement a pursuit infers them, which explains more and lets the same steps go "
        "on to the true atoms"
    ),
    "finish": ("in the finish atoms go on with Adam, as the refinement could not explain the data"),
    "polish": "in the polish the atoms are solved for, all at once, between two pursuits",
    "encoder": "at last the atoms are held, and the encoder gets weights of its own",
}


def phases(run: Run) -> str:
    """What the phases of the learning curves are; nothing where there is only one."""
    seen = {str(r.get("phase")) for r in run.history}
    known = [text for phase, text in PHASES.items() if phase in seen]
    if len(known) < 2:
        return ""
    return f"The numbers are those of each phase\u2019s codes: {'; '.join(known)}."


def settling(history: Sequence[dict[str, Any]]) -> float | None:
    """The relative change of the mean loss between the last two tenths of the descent.

    None where there are fewer than 20 records (two a tenth) or the loss isn't positive.
    Refinement and polish have stopping rules of their own, and aren't looked at.
    """
    losses = [number(r.get("loss")) for r in history if r.get("phase", "descent") == "descent"]
    values = np.array([loss for loss in losses if loss is not None])
    if len(values) < 20:
        return None
    tenth = len(values) // 10
    before, after = values[-2 * tenth : -tenth].mean(), values[-tenth:].mean()
    return float(after / before - 1) if before > 0 else None


def tiles(run: Run) -> list[Tile]:
    """The key figures of the page; one that isn't known is left out."""
    m, n = run.dictionary.shape
    diagnosis = run.section("diagnosis")
    out = [Tile("Atoms", count(m), f"of {plural(n, 'feature')} each")]
    l0 = number(diagnosis.get("l0"))
    if l0 is not None:
        out.append(Tile("Active a sample", compact(l0), f"{percent(l0 / m)} of the atoms (L0)"))
    explained = number(diagnosis.get("explained_variance"))
    if explained is not None:
        out.append(Tile("Explained variance", percent(explained), "1 − error ÷ variance¹"))
    dead = dead_count(run)
    if dead is not None:
        out.append(Tile("Dead atoms", count(dead), "active on no sample"))
    duplicates = _diagnosis_list(run, "duplicate_atoms")
    if duplicates is not None:
        out.append(Tile("Near-duplicates", count(len(duplicates)), "pairs of atoms"))
    coherence = number(diagnosis.get("coherence"))
    if coherence is not None:
        out.append(Tile("Coherence", compact(coherence), "largest |cosine| of two atoms"))
    fit = number(run.section("seconds").get("fit"))
    if fit is not None:
        out.append(Tile("Time to fit", duration(fit), _pace(run, fit)))
    return out


def _pace(run: Run, fit: float) -> str:
    taken = [r for r in run.history if r.get("phase", "descent") not in ("polish", "encoder")]
    step = number(taken[-1].get("step")) if taken else None
    return plural(step, "step") if step else "from start to end"
