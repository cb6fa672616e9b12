"""A verdict against a paper survives ten times the samples."""

import pytest

from shoal.generative import MixtureOfGaussians, NonnegativeSparseCoding, SparseCoding
from shoal.theory import plain_worlds
from shoal.theory.plain_worlds import Steadiness, ask_twice, main, one_exact_step, places

FEW = list(places([(24, 24), (16, 32)], (0.0, 0.1), (1, 3)))


def test_there_are_a_hundred_of_three_kinds():
    every = [type(place.world) for place in places()]
    assert len(every) == 100
    assert {every.count(kind) for kind in (SparseCoding, NonnegativeSparseCoding)} == {45}
    assert every.count(MixtureOfGaussians) == 10


@pytest.mark.parametrize("place", FEW, ids=[place.name for place in FEW])
def test_no_verdict_against_a_paper_changes_with_the_samples(place):
    found = ask_twice(place, 100)
    assert found.unsteady == []
    # What is contradicted at all is contradicted by arithmetic.
    ours = [each for each in found.contradicted if not each.startswith(("Theorem 3.1", "Lemma 5."))]
    assert ours in ([], ["Section 4, biases"])


@pytest.mark.parametrize("place", FEW[:10], ids=[place.name for place in FEW[:10]])
def test_no_theorem_is_contradicted_where_an_exact_step_obeys_it(place):
    before, after = one_exact_step(place)
    verdicts = [
        both for name, both in ask_twice(place, 100).verdicts.items() if "Theorem 4" in name
    ]
    k, m = place.world.k, place.world.n_atoms
    floor = k**3 / m if isinstance(place.world, NonnegativeSparseCoding) else 0.0
    assert after <= before / 4 + floor + 1e-20
    assert len(verdicts) == 1
    assert set(verdicts[0]) <= {"confirmed", "holds beyond its hypotheses"}


def test_a_change_is_seen():
    both = {"A": ("contradicted", "confirmed"), "B": ("contradicted", "contradicted")}
    found = Steadiness("a place", both)
    assert found.contradicted == ["A", "B"]
    assert found.unsteady == ["A"]


@pytest.mark.parametrize(("verdict", "code"), [("contradicted", 1), ("confirmed", 0)])
def test_the_command_ends_with_an_error_where_a_theorem_is_wronged(
    verdict, code, monkeypatch, capsys
):
    said = {"Theorem 4 (ii)": (verdict, verdict)}
    monkeypatch.setattr(plain_worlds, "places", lambda: [FEW[1], FEW[4]])
    monkeypatch.setattr(plain_worlds, "ask_twice", lambda place, _: Steadiness(place.name, said))
    assert main(["--samples", "80"]) == code
    out = capsys.readouterr().out
    assert f"Theorem 4 (ii): {verdict}: 4" in out
    assert f"where an exact step falls by 4: {4 * code // 2}" in out
    assert main(["--samples", "80", "--json"]) == code
    assert capsys.readouterr().out.startswith('{"name": "mixture n=24')
