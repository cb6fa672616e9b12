"""What a run folder must have is asked for by name; what it may lack is not."""

import numpy as np
import pytest

from shoal.report import write_atoms, write_report
from shoal.report.run import read_run
from shoal.vocabulary import RunError


@pytest.mark.parametrize("name", ["config.json", "history.jsonl", "dictionary.safetensors"])
@pytest.mark.parametrize("write", [write_atoms, write_report])
def test_a_missing_file_is_named(write_run, write, name):
    folder = write_run()
    (folder / name).unlink()
    with pytest.raises(RunError, match=name) as caught:
        write(folder)
    assert "\n" not in str(caught.value)
    assert "needed" in str(caught.value)


def test_a_missing_folder_and_a_file_instead_of_one(tmp_path):
    with pytest.raises(RunError, match="found nothing"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="found a file"):
        write_report(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("config.json", b"{", "not JSON"),
        ("config.json", b"[]", "found format 'list'"),
        ("config.json", b"{}", "shoal-run"),
        ("config.json", b'{"format": "shoal-run", "format_version": 3}', "format_version 3"),
        ("config.json", b"\xff", "UTF-8"),
        ("history.jsonl", b"{}\n3\n", "line 2"),
        ("history.jsonl", b"{}\n{\n{}\n", "line 2"),
        ("dictionary.safetensors", b"nothing", "safetensors"),
    ],
)
def test_a_damaged_file_is_named(write_run, name, content, match):
    folder = write_run()
    (folder / name).write_bytes(content)
    with pytest.raises(RunError, match=match) as caught:
        read_run(folder)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dictionary", [np.zeros((0, 3)), np.zeros(3), None])
def test_a_dictionary_must_be_a_matrix(write_run, dictionary):
    with pytest.raises(RunError, match="dictionary"):
        read_run(write_run(dictionary=dictionary))


def test_a_history_cut_short_in_its_last_line_is_read_up_to_there(write_run):
    folder = write_run(rows=[{"step": 1}])
    with open(folder / "history.jsonl", "a") as file:
        file.write('{"step": 2, "lo')
    assert read_run(folder).history == [{"step": 1}]


def test_numbers_that_json_does_not_have_are_unknown(write_run):
    folder = write_run(rows=[])
    (folder / "history.jsonl").write_text('{"loss": NaN, "step": Infinity, "epoch": 2}\n')
    assert read_run(folder).history == [{"loss": None, "step": None, "epoch": 2}]


@pytest.mark.parametrize(
    ("shape", "read"),
    [
        ([3, 3], (3, 3)),
        ([3, 3, 1], (3, 3)),
        ([1, 3, 3], (1, 3, 3)),  # three channels of one row: RGB by its last axis
        ([4, 4], None),
        ([9], None),
        ("3x3", None),
        (None, None),
    ],
)
def test_only_shapes_of_pictures_that_fit_are_pictures(write_run, shape, read):
    assert read_run(write_run(shape=shape)).feature_shape == read


def test_order_is_by_energy_and_as_stored_without_one(write_run):
    energy = np.array([0.1, 3.0, 0.1, 2.0], np.float32)
    run = read_run(write_run(m=4, name="a", atom_energy=energy))
    assert run.order().tolist() == [1, 3, 0, 2]
    run = read_run(write_run(m=4, name="b", atom_energy=None))
    assert run.order().tolist() == [0, 1, 2, 3]
