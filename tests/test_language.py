"""A language model's activations: to a store, from there to a fit, and back to the texts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import shoal
from commands import done, refused
from shoal.data import open_source
from shoal.language import activations, iter_activations, open_model
from shoal.vocabulary import ArgumentError, RunError, SourceError, WriteError

transformers = pytest.importorskip("transformers")

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "under",
    "mat",
    "hill",
    "and",
    "then",
    "it",
    "was",
    "very",
    "red",
    "blue",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A tiny transformer with random weights, and a tokenizer that knows some words."""
    import torch

    folder = tmp_path_factory.mktemp("language") / "tiny"
    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    words = {word: number for number, word in enumerate(vocabulary)}
    transformers.BertTokenizerFast(vocab=words, model_max_length=32).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    rng = np.random.default_rng(0)
    for number in range(3):
        words = rng.choice([*WORDS, "."], size=2500)
        (folder / f"{number}.txt").write_text(" ".join(words))
    return folder


@pytest.fixture(scope="module")
def store(model, texts, tmp_path_factory) -> Path:
    return activations(model, [texts], tmp_path_factory.mktemp("store") / "acts", layer=1)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted(folder.iterdir())}


def test_a_row_is_what_the_model_makes_of_a_token(model, texts, store):
    import torch

    source = open_source(store)
    assert source.n_samples == 3 * 2500
    assert source.n_features == 16
    assert json.loads((store / "index.json").read_text())["layer"] == 1
    opened = open_model(model)
    text = (texts / "1.txt").read_text()
    coded = opened.tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad():
        states = opened.network(**coded, output_hidden_states=True).hidden_states[1][0]
    rows = source.rows(np.arange(2500, 2530))
    np.testing.assert_allclose(rows, states[1:-1].numpy(), atol=2e-3)


def test_each_row_knows_its_place_in_the_texts(texts, store):
    source = open_source(store)
    rows = np.array([0, 2499, 2500, 7499, 31])
    words = [(texts / f"{n}.txt").read_text().split() for n in range(3)]
    for row, passage in zip(rows, source.passages(rows), strict=True):
        number, place = divmod(int(row), 2500)
        assert passage.document == f"{number}.txt"
        assert passage.token == words[number][place]
        assert passage.before.split()[-1:] == words[number][place - 1 : place]


def test_a_killed_one_goes_on_to_the_same_bytes(model, texts, store, tmp_path):
    steps = iter_activations(model, [texts], tmp_path / "acts", layer=1)
    next(steps)
    steps.close()
    assert not (tmp_path / "acts").exists()
    first = tmp_path / "acts.partial" / "00000.safetensors"
    written = first.stat().st_mtime_ns
    with pytest.raises(RunError, match="another model, layer or text"):
        iter_activations(model, [texts], tmp_path / "acts", layer=2)
    for _ in iter_activations(model, [texts], tmp_path / "acts", layer=1):
        assert first.stat().st_mtime_ns == written
    assert bytes_of(tmp_path / "acts") == bytes_of(store)
    assert not (tmp_path / "acts.partial").exists()


def test_what_can_not_be_used_is_refused_and_leaves_nothing(model, texts, tmp_path, monkeypatch):
    def refuses(said, error=SourceError, **changed):
        given = {"model": model, "text": [texts], "layer": 1} | changed
        layer = given.pop("layer")
        with pytest.raises(error, match=said):
            iter_activations(given["model"], given["text"], tmp_path / "out", layer=layer)
        assert not list(tmp_path.glob("out*"))

    refuses("from 0 .* to 2", ArgumentError, layer=3)
    refuses("from 0 .* to 2", ArgumentError, layer=-1)
    refuses("neither a folder nor an installed package", model="no-such-model")
    refuses("without config.json", model=texts)
    empty, odd = tmp_path / "empty.txt", tmp_path / "odd.txt"
    empty.write_text(" \n")
    odd.write_bytes(b"\xff\xfe\x00")
    refuses("without a word", text=[empty])
    refuses("not UTF-8", text=[odd])
    refuses("no regular file", text=[tmp_path / "nothing.txt"])
    refuses("no file", text=[])
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "config.json").write_text("{")
    refuses("can't be loaded", model=broken)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refuses(r"pip install \"shoal\[activations\]\"")


def test_a_full_disk_leaves_whole_shards_to_go_on_from(model, texts, store, tmp_path, monkeypatch):
    import shoal.language as room

    write = room.write_bytes

    def full(path, data):
        if path.name == "00001.safetensors":
            raise WriteError(f"{path}: can't be written (No space left on device)")
        return write(path, data)

    monkeypatch.setattr(room, "write_bytes", full)
    with pytest.raises(WriteError, match="No space left"):
        activations(model, [texts], tmp_path / "acts", layer=1, window=8)
    assert not (tmp_path / "acts").exists()
    monkeypatch.undo()
    activations(model, [texts], tmp_path / "acts", layer=1, window=8)
    assert open_source(tmp_path / "acts").n_samples == open_source(store).n_samples


def test_a_store_that_is_not_whole_is_refused_by_name(store, tmp_path):
    def damaged(change, text):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(store, copy)
        change(copy)
        with pytest.raises(SourceError, match=text):
            open_source(copy).rows(np.arange(3))

    def cut(folder):
        file = folder / "00000.safetensors"
        file.write_bytes(file.read_bytes()[:-100])

    def index_with(**changed):
        def change(folder):
            index = json.loads((folder / "index.json").read_text()) | changed
            (folder / "index.json").write_text(json.dumps(index))

        return change

    damaged(lambda folder: (folder / "00000.safetensors").unlink(), "without 00000")
    damaged(cut, "00000.safetensors")
    damaged(index_with(format_version=2), "format version 2")
    damaged(index_with(shards=[]), "no shards")
    damaged(index_with(shards=[{"name": "../x", "rows": 1}]), "a shard named")
    damaged(index_with(shards=[{"name": "00000.safetensors", "rows": 7}]), "7, as index.json says")


def test_the_preset_is_a_name_for_arguments_and_what_is_given_wins():
    rows = np.random.default_rng(0).standard_normal((300, 12)).astype(np.float32)
    named = {"n_nonzero_coefs": 3, "random_state": 0}
    model = shoal.DictionaryAutoencoder(16, preset="activations", **named).fit(rows)
    plain = shoal.DictionaryAutoencoder(
        16, model="nonnegative", preprocessing="center", norms="clip", **named
    ).fit(rows)
    assert (model.components_ == plain.components_).all()
    assert (model.transform(rows) == plain.transform(rows)).all()
    assert model.preset == "activations"
    assert model.model == "sparse", "an argument was written to"
    assert model.fitted_params()["model"] == "nonnegative"
    with pytest.raises(ArgumentError, match="n_nonzero_coefs: found 32"):
        shoal.DictionaryAutoencoder(16, preset="activations").fit(rows)
    with pytest.raises(ArgumentError, match="preset: found 'images'"):
        shoal.DictionaryAutoencoder(16, preset="images").fit(rows)


def test_the_chain_that_a_newcomer_types(model, texts, tmp_path):
    acts, run = tmp_path / "acts", tmp_path / "run"
    first, *more = sorted(texts.iterdir())
    done("activations", model, "--layer", 1, "--text", first, *more, "-o", acts)
    assert "exists" in refused("activations", model, "--layer", 1, "--text", first, "-o", acts)
    words = ["-m", 20, "-k", 2, "--preset", "activations", "--quiet"]
    done("fit", acts, *words, "-o", run)
    again = shoal.load_run(run)
    assert again.model_ == "nonnegative"
    assert again.preprocessing_.spec.kind == "center"
    line = refused("activations", model, "--layer", 9, "--text", first, "-o", tmp_path / "other")
    assert "layer: found 9" in line


def test_the_report_has_the_texts_that_fire_each_atom(store, tmp_path):
    rows = open_source(store)
    model = shoal.DictionaryAutoencoder(20, 2, preset="activations", random_state=0).fit(rows)
    run = shoal.save_run(model, tmp_path / "run", store)
    told = json.loads((run / "config.json").read_text())["texts"]
    index = np.arange(rows.n_samples)
    codes = model.transform(rows, told["method"])
    passages = rows.passages(index)
    assert len(told["atoms"]) == (codes != 0).any(axis=0).sum()
    for atom in told["atoms"]:
        column = np.abs(codes[:, atom["atom"]])
        strongest = column.argmax()
        value, *texts = atom["top"][0]
        assert abs(value) == pytest.approx(column[strongest], rel=1e-5)
        assert tuple(texts) in {tuple(passages[i]) for i in np.flatnonzero(column == abs(value))}
        sizes = [abs(each[0]) for each in atom["quantiles"]]
        assert sizes == sorted(sizes, reverse=True)
        at = np.quantile(column[column > 0], [0.95, 0.05])
        assert sizes[0] == pytest.approx(at[0], rel=0.1)
        assert sizes[-1] == pytest.approx(at[1], rel=0.3)
    page = (run / "report.html").read_text()
    assert "What fires them" in page
    assert f"<mark>{told['atoms'][0]['top'][0][3]}</mark>" in page


def test_texts_are_shown_and_not_obeyed(store, tmp_path):
    copy = tmp_path / "acts"
    shutil.copytree(store, copy)
    lines = (copy / "documents.jsonl").read_text().splitlines()
    evil = [json.loads(line) for line in lines]
    for each in evil:
        each["text"] = "<script>alert(1)</script>\x1b[2J" * 4000
    (copy / "documents.jsonl").write_text("\n".join(map(json.dumps, evil)) + "\n")
    model = shoal.DictionaryAutoencoder(12, 1, preset="activations", random_state=0).fit(copy)
    page = (shoal.save_run(model, tmp_path / "run", copy) / "report.html").read_text()
    assert "<script>alert" not in page
    assert "\x1b" not in page
