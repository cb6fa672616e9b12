"""shoal.certify: verdicts where the truth is known, and what it refuses."""

import json

import numpy as np
import pytest

import shoal
from commands import done, refused
from shoal.certificate import VERDICTS, certifying, learning
from shoal.certificate.certificate import _decided
from shoal.certificate.refits import subject
from shoal.certificate.rule import FOR, MIXED, chance, table
from shoal.generative import SparseCoding, random_dictionary

M, K = 16, 2


@pytest.fixture(scope="module")
def world():
    return SparseCoding(random_dictionary(M, 12, random_state=0), K, noise=0.05)


@pytest.fixture(scope="module")
def rows(world):
    return world.sample(800, random_state=1).data


@pytest.fixture(scope="module")
def model(rows):
    return shoal.DictionaryAutoencoder(M, K, random_state=0).fit(rows)


@pytest.fixture(scope="module")
def certificate(model, rows):
    return shoal.certify(model, rows, budget=4, random_state=0)


def test_atoms_that_are_found_are_certified(certificate, model, world):
    true = np.abs(model.components_ @ world.dictionary.T).max(axis=1) >= 0.9
    assert true.sum() >= 14
    assert certificate.certified[true].mean() >= 0.9
    assert certificate.certified.shape == (len(model.components_),)
    assert certificate.verdicts.count("certified") == certificate.certified.sum()


def test_a_wrong_atom_among_true_ones_is_not_certified(world, rows):
    atoms = world.dictionary.copy()
    atoms[3] = random_dictionary(1, 12, random_state=5)[0]
    found = shoal.certify(atoms, rows, n_nonzero_coefs=K, budget=4, random_state=0)
    assert not found.certified[3]
    assert found.certified[np.arange(M) != 3].mean() >= 0.9


def test_noise_has_no_certified_atoms():
    noise = np.random.default_rng(0).standard_normal((600, 10))
    model = shoal.DictionaryAutoencoder(15, 2, random_state=0).fit(noise)
    found = shoal.certify(model, noise, budget=4, random_state=0)
    assert not found.certified.any()
    assert found.verdicts.count("noise") >= 14


def test_the_same_seed_gives_the_same_and_the_model_stays_as_it_is(certificate, model, rows):
    before = model.components_.copy()
    again = shoal.certify(model, rows, budget=4, random_state=0)
    assert again.to_dict() == certificate.to_dict()
    assert np.array_equal(model.components_, before)


def test_it_takes_what_others_learnt(world, rows):
    from sklearn.decomposition import SparseCoder

    coder = SparseCoder(world.dictionary, transform_algorithm="omp", transform_n_nonzero_coefs=K)

    class Learnt:
        """As scikit-learn's, with atoms of another length."""

        components_ = 3.0 * world.dictionary

        def transform(self, X):
            return coder.transform(X) / 3.0

    found = shoal.certify(Learnt(), rows, budget=4, random_state=0)
    assert found.certified.mean() >= 0.9
    # Contributions are the same, whatever the length of the atoms.
    same = subject(world.dictionary, rows, codes=coder.transform).code(np.arange(50))
    other = subject(Learnt(), rows).code(np.arange(50))
    assert other.codes.toarray() == pytest.approx(same.codes.toarray())
    assert other.rest == pytest.approx(same.rest)


@pytest.mark.parametrize("kind", ["saelens", "sparsify"])
def test_it_takes_a_folder_of_another_package(kind, world, rows, model, tmp_path):
    # Codes are never negative there.
    one = shoal.DictionaryAutoencoder(M, K, model="nonnegative", random_state=0)
    data = np.abs(world.sample(1200, random_state=1).codes) @ world.dictionary
    one.fit(data.astype(np.float32))
    shoal.export(one, tmp_path / "sae", kind)
    opened = shoal.open_sae(tmp_path / "sae")
    if kind == "saelens":  # which is opened to the same model
        assert subject(opened, data).code(np.arange(50)).atoms.shape == (M, 12)
        return
    found = shoal.certify(opened, data, budget=4, random_state=0)
    true = np.abs(opened.components_ @ world.dictionary.T).max(axis=1) >= 0.9
    assert true.mean() > 0.8
    assert found.certified[true].mean() >= 0.8
    with pytest.raises(shoal.ArgumentError, match="X: found 5 features; needed 12"):
        shoal.certify(opened, data[:, :5])


def test_preprocessing_is_the_models_own(world, rows):
    moved = 100.0 + 7.0 * rows
    model = shoal.DictionaryAutoencoder(M, K, preprocessing="center", random_state=0).fit(moved)
    found = shoal.certify(model, moved, budget=4, random_state=0)
    assert found.certified.mean() >= 0.8


def test_what_it_says(certificate):
    said = certificate.summary()
    assert f"{certificate.counts['certified']} of {M} atoms are certified" in said
    assert "two halves" in said
    assert len(certificate.table().splitlines()) == M + 1
    assert len(certificate.table(5).splitlines()) == 6
    stored = json.loads(json.dumps(certificate.to_dict(), allow_nan=False))
    assert stored["certified"] == certificate.certified.tolist()
    assert sum(certificate.counts.values()) == M
    assert str(certificate).startswith("16 atoms: ")
    assert set(certificate.verdicts) <= set(VERDICTS)


def test_the_budget_is_kept(model, rows, certificate):
    assert certificate.fits == 4
    steps, more = _whole(certifying(model, rows, budget=6, random_state=0))
    assert more.fits == 6
    assert steps[-1].share == 1.0
    shares = [step.share for step in steps]
    assert shares == sorted(shares)
    notes = ["half 1", "half 2", "surrogate", "shuffled columns", "evidence"]
    assert list(dict.fromkeys(step.note for step in steps)) == notes


def _whole(steps):
    made = []
    while True:
        try:
            made.append(next(steps))
        except StopIteration as end:
            return made, end.value


def test_more_evidence_for_an_atom_never_lowers_its_chance(certificate):
    stored = table()
    assert len(stored["true"]["weights"]) == len(FOR)
    assert len(stored["mixture"]["weights"]) == len(MIXED)
    assert min(stored["true"]["weights"] + stored["mixture"]["weights"]) >= 0
    worse = dict(certificate.evidence)
    for name in ("match", "firing", "share"):
        worse[name] = 0.9 * worse[name]
    worse["crowding"] = 2.0 * worse["crowding"]
    assert (chance(worse, "true") <= chance(certificate.evidence, "true")).all()
    assert (chance(worse, "true") < chance(certificate.evidence, "true")).any()


@pytest.mark.parametrize(("others", "expected"), [(1.0, "mixture"), (3.0, "doubtful")])
def test_a_mixture_is_called_so_where_atoms_as_a_whole_have_room(others, expected):
    """Three kinds of evidence; where all atoms overlap, closeness is no evidence of a mixture."""
    m = 10
    evidence = {name: np.full(m, value) for name, value in GOOD.items()}
    evidence["crowding"][1:] = others
    evidence["crowding"][0], evidence["kin"][0] = 2.5, 3.5
    evidence["match"][9], evidence["more_than_noise"][9] = 0.2, False
    verdicts = _decided(evidence)
    assert verdicts[0] == expected
    assert verdicts[9] == "noise"
    assert others > 1 or verdicts[1:9] == ["certified"] * 8


GOOD = {
    "match": 0.98, "match_null": 0.6, "match_p": 1e-4, "more_than_noise": True, "firing": 0.9,
    "loss": 0.1, "share": 0.9, "share_null": 0.3, "split": 0.0, "crowding": 1.0, "kin": 1.0,
    "uses": 30,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, X: ((m, X[:, :5]), {}), "X: found 5 features; needed 12 features"),
        (lambda m, X: ((m, X[:60]), {}), "X: found 60 rows; needed 64 or more for 16 atoms"),
        (lambda m, X: ((m.components_[:1], X), {"n_nonzero_coefs": 1}), "model: found one atom"),
        (lambda m, X: ((m.components_, X), {}), "model: found atoms without a way to code"),
        (lambda m, X: ((m.components_, X), {"n_nonzero_coefs": 99}), "n_nonzero_coefs: found 99"),
        (lambda m, X: ((m, X), {"n_nonzero_coefs": 2}), "n_nonzero_coefs: found one beside"),
        (lambda m, X: ((m, X), {"budget": 3}), "budget: found 3; needed an integer >= 4"),
        (lambda m, X: ((m, X), {"random_state": "x"}), "random_state: found 'x'"),
        (lambda m, X: ((m, (X[:9] for _ in range(20))), {}), "X: found a stream"),
        (lambda m, X: ((m, np.where(X[3, 3] == X, np.nan, X)), {}), "found nan at row 3"),
        (
            lambda m, X: ((m.components_, X), {"codes": lambda rows: np.ones((3, 2))}),
            "codes: found shape (3, 2); needed (800, 16)",
        ),
        (
            lambda m, X: ((m.components_, X), {"codes": lambda rows: np.full((800, 16), np.nan)}),
            "codes: found NaN or infinity",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_any_work(model, rows, change, message):
    given, named = change(model, rows)
    with pytest.raises(shoal.ArgumentError) as caught:
        certifying(*given, **named)  # no step is asked for
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# --- the command line --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("certify")
    np.save(folder / "rows.npy", rows)
    np.save(folder / "narrow.npy", rows[:, :5])
    done("fit", folder / "rows.npy", "-m", M, "-k", K, "-q", "-o", folder / "run")
    return folder


def test_a_run_is_certified(folder):
    words = ("certify", folder / "run", folder / "rows.npy", "--budget", 4)
    shown = done(*words, "--atoms", "-o", folder / "certificate.json").stdout
    assert "atoms are certified" in shown
    kept = json.loads((folder / "certificate.json").read_text())
    assert sum(kept["certified"]) > 13
    printed = json.loads(done(*words, "--json").stdout)
    assert printed == kept
    line = refused(*words, "-o", folder / "certificate.json")
    assert "--force" in line


def test_what_a_run_cannot_be_certified_on_is_refused(folder):
    assert "5 features" in refused("certify", folder / "run", folder / "narrow.npy")
    few = refused("certify", folder / "run", folder / "rows.npy", "--budget", 2)
    assert "budget: found 2" in few
    assert ".json" in refused("certify", folder / "run", folder / "rows.npy", "-o", "x.txt")


# --- learnt again: kept, and by processes ------------------------------------------------------


def test_a_call_that_was_cut_off_goes_on_to_the_same_certificate(
    certificate, model, rows, tmp_path, monkeypatch
):
    folder = tmp_path / "kept"
    given = {"budget": 4, "random_state": 0, "checkpoint": folder}
    steps = certifying(model, rows, **given)
    for step in steps:
        if step.note == "surrogate":
            break
    steps.close()
    assert sorted(each.name for each in folder.iterdir()) == [
        "0.json", "0.safetensors", "1.json", "1.safetensors", "plan.json",
    ]  # fmt: skip
    damaged = folder / "1.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    learnt = []
    usual = learning._following
    monkeypatch.setattr(
        learning, "_following", lambda recipe, task: learnt.append(task.what) or usual(recipe, task)
    )
    again = shoal.certify(model, rows, **given)
    assert learnt == ["half 2", "surrogate", "surrogate"]
    assert json.dumps(again.to_dict()) == json.dumps(certificate.to_dict())
    assert not folder.exists()


@pytest.mark.parametrize(
    ("change", "other"),
    [
        (lambda m, X: ((m, X[:-1]), {}), "another data set"),
        (lambda m, X: ((-m.components_, X), {"n_nonzero_coefs": K}), "another model"),
        (lambda m, X: ((m, X), {"random_state": 1}), "another seed"),
        (lambda m, X: ((m, X), {"budget": 6}), "another budget"),
    ],
)
def test_what_is_kept_of_another_call_is_refused(model, rows, tmp_path, change, other):
    given = {"budget": 4, "random_state": 0, "checkpoint": tmp_path / "kept"}
    certifying(model, rows, **given).close()
    wrong, named = change(model, rows)
    with pytest.raises(shoal.RunError, match=other):
        certifying(*wrong, **given | named)
    certifying(*wrong, **given | named, overwrite=True).close()
    with pytest.raises(shoal.RunError, match=other):
        certifying(model, rows, **given)


def test_a_folder_of_something_else_is_left_alone(model, rows, tmp_path):
    (tmp_path / "mine").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(shoal.RunError, match="something else"):
            certifying(model, rows, random_state=0, checkpoint=tmp_path, overwrite=overwrite)
    assert (tmp_path / "mine").read_text() == "precious"
    with pytest.raises(shoal.ArgumentError, match="random_state: found None"):
        certifying(model, rows, checkpoint=tmp_path / "kept")


def test_a_process_learns_what_is_learnt_here(model, rows):
    of = subject(model, rows)
    task = learning.Task("half", of.prepared[:300], of.prepared[300:400], 5, True, True)
    here, there = (
        _whole(learning.learn_all(of.estimator, [task], n_jobs, None))[1][0] for n_jobs in (1, 2)
    )
    assert np.array_equal(here.coded.atoms, there.coded.atoms)
    assert np.array_equal(here.coded.codes.toarray(), there.coded.codes.toarray())
    assert np.array_equal(here.coded.rest, there.coded.rest)
    assert np.array_equal(here.extra, there.extra)
    assert here.extra.shape == (M // 2, 12)


def test_a_command_goes_on_from_what_is_kept(folder):
    words = ("certify", folder / "run", folder / "rows.npy", "--budget", 4, "--json")
    kept = folder / "run.certificate.partial"
    model = shoal.load_run(folder / "run")
    whole = shoal.certify(model, folder / "rows.npy", budget=4, random_state=0).to_dict()
    steps = certifying(model, folder / "rows.npy", budget=4, random_state=0, checkpoint=kept)
    next(step for step in steps if step.note == "surrogate")
    steps.close()
    assert json.loads(done(*words, "-j", 1).stdout) == whole
    assert not kept.exists()
