"""Damaged files: no raw error, no row lost, no hang, no death; a few hundred here."""

import sys
from collections import Counter

import pytest

from attacks import mutate

# Formats whose numbers carry no checksum: damage there is seen only where it breaks the form.
UNCHECKED = {kind for kind in mutate.KINDS if kind not in (
    ".npz stored", ".npz deflated", ".npz sparse", ".csv.gz", ".parquet with page checksums", ".png"
)}  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and fork")
def test_damaged_files_are_refused_or_whole(tmp_path):
    jobs = [(kind, seed) for kind in mutate.KINDS for seed in range(14)]
    found = list(mutate.run(jobs, tmp_path))
    assert len(found) == len(jobs)
    # Text that ends after a whole line is a shorter table: nothing in it says how many there were.
    good = {"refused", "same", "other values"}
    bad = [each for each in found if each[2] not in good]
    assert [each for each in bad if (each[0], each[2]) != (".csv", "rows")] == []
    other = Counter(each[0] for each in found if each[2] == "other values")
    assert set(other) <= UNCHECKED
    assert sum(each[2] == "refused" for each in found) > len(jobs) / 3


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and fork")
def test_deaths_hangs_and_wrong_answers_are_counted(tmp_path, monkeypatch):
    import os
    import time

    monkeypatch.setattr(mutate, "SECONDS", 2)
    monkeypatch.setattr(mutate, "FIRST", 0)
    ends = {
        1: lambda rows: os.abort(),
        2: lambda rows: time.sleep(99),
        3: lambda rows: (len(rows), rows + 1),
        4: lambda rows: (len(rows) - 1, rows[1:]),
        5: lambda rows: 1 / 0,
        6: lambda rows: (len(rows), bytearray(b"1" * 2**27) and rows),
        7: lambda rows: (len(rows), rows),
    }
    read = mutate.read

    def broken(path):
        if path.parent.name != "damaged":
            return read(path)
        number = int((path.parent / "number").read_text())
        return ends[number](mutate.ROWS)

    monkeypatch.setattr(mutate, "read", broken)
    monkeypatch.setattr(
        mutate, "damage", lambda path, rng: (path.parent / "number").write_text(rng.number)
    )
    monkeypatch.setattr(
        mutate.random, "Random", lambda text: type("R", (), {"number": text.split()[-1]})
    )
    found = {each[1]: each[2] for each in mutate.run([(".npy", i) for i in ends], tmp_path)}
    expected = ["died", "hang", "other values", "rows", "raw", "memory", "same"]
    assert found == dict(zip(ends, expected, strict=True))
