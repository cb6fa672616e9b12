"""HDF5, AnnData, MATLAB and sound, as people have them."""

from contextlib import suppress

import numpy as np
import pytest

import shoal
from shoal import ShoalError, SourceError
from shoal.data import open_source
from shoal.vocabulary import ArgumentError

h5py = pytest.importorskip("h5py")
DATA = np.random.default_rng(0).standard_normal((3000, 12)).astype(np.float32)


def rows(source):
    return np.concatenate(list(source.batches(700)))


@pytest.mark.parametrize("chunks", [None, (100, 12), (7, 5)])
def test_an_array_of_hdf5_is_read_row_by_row(tmp_path, chunks):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=DATA, chunks=chunks)
    source = open_source(tmp_path / "a.h5")
    np.testing.assert_array_equal(rows(source), DATA)
    assert (source.n_samples, source.n_features) == DATA.shape


def test_one_of_several_arrays_is_named(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["first/values"], file["second"] = DATA, DATA[:5, :3]
    with pytest.raises(SourceError, match="first/values, second"):
        open_source(tmp_path / "a.hdf5")
    found = open_source(tmp_path / "a.hdf5", key="first/values")
    np.testing.assert_array_equal(rows(found), DATA)


def test_the_truth_beside_data_is_kept(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["dictionary"] = DATA, np.eye(12)
    assert open_source(tmp_path / "a.h5").truth.dictionary.shape == (12, 12)


def test_numbers_in_other_files_are_refused(tmp_path):
    DATA.tofile(tmp_path / "secret.bin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        place = [(str(tmp_path / "secret.bin"), 0, DATA.nbytes)]
        file.create_dataset("data", DATA.shape, DATA.dtype, external=place)
    with pytest.raises(SourceError, match="other files"):
        open_source(tmp_path / "a.h5")


def test_links_out_of_the_file_are_not_followed(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = DATA
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = h5py.ExternalLink("other.h5", "data")
    with pytest.raises(SourceError, match="nothing"):
        open_source(tmp_path / "a.h5")


@pytest.mark.parametrize("kept", [0, 4, 100, 5000])
def test_a_file_that_was_cut_off_is_refused_in_one_line(tmp_path, kept):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = DATA
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[:kept])
    with pytest.raises(SourceError, match=r"cut\.h5"):
        rows(open_source(tmp_path / "cut.h5"))


def test_a_file_that_is_written_to_meanwhile_is_noticed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = DATA
    source = open_source(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = DATA[:10]
    with pytest.raises(SourceError, match="written to"):
        rows(source)


@pytest.mark.filterwarnings("ignore:.*infer_string")
class TestAnnData:
    @pytest.fixture
    def cells(self):
        from scipy.sparse import csr_matrix

        anndata, pandas = pytest.importorskip("anndata"), pytest.importorskip("pandas")
        counts = np.random.default_rng(1).poisson(0.3, (200, 9)).astype(np.float32)
        with pandas.option_context("future.infer_string", False):  # not every anndata writes those
            cells = anndata.AnnData(csr_matrix(counts))
            cells.layers["log"] = np.log1p(counts)
            cells.var_names = [f"gene{i}" for i in range(9)]
            yield cells, counts

    def test_in_memory_and_on_disk_are_the_same(self, cells, tmp_path):
        cells, counts = cells
        cells.write_h5ad(tmp_path / "cells.h5ad")
        for what in (cells, tmp_path / "cells.h5ad"):
            np.testing.assert_array_equal(rows(open_source(what)), counts)
            np.testing.assert_allclose(rows(open_source(what, key="log")), np.log1p(counts))

    def test_genes_are_the_features_names(self, cells):
        assert list(open_source(cells[0]).feature_names)[:2] == ["gene0", "gene1"]

    def test_a_layer_that_is_not_there_is_named(self, cells, tmp_path):
        cells[0].write_h5ad(tmp_path / "cells.h5ad")
        for what in (cells[0], tmp_path / "cells.h5ad"):
            with pytest.raises(ArgumentError, match="log"):
                open_source(what, key="counts")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_matlab_file_is_read(tmp_path, compressed):
    from scipy.io import savemat

    savemat(tmp_path / "a.mat", {"X": DATA, "name": "patches"}, do_compression=compressed)
    np.testing.assert_array_equal(rows(open_source(tmp_path / "a.mat")), DATA)


def test_a_matlab_file_of_version_7_3_has_its_rows_as_columns(tmp_path):
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["X"] = DATA.T
    with open(tmp_path / "a.mat", "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(512, b"\0"))
    np.testing.assert_array_equal(rows(open_source(tmp_path / "a.mat")), DATA)


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file" + bytes(300), b"x" * 500])
def test_a_broken_matlab_file_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.mat"):
        open_source(tmp_path / "a.mat")


@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.float32])
def test_sound_is_cut_into_windows(tmp_path, kind):
    from scipy.io import wavfile

    wave = np.sin(np.arange(2000) / 7)
    levels = {np.int16: 32767 * wave, np.uint8: 127 * wave + 128, np.float32: wave}[kind]
    wavfile.write(tmp_path / "a.wav", 8000, levels.astype(kind))
    found = rows(open_source(tmp_path / "a.wav", window=100, hop=50))
    assert found.shape == (39, 100)
    np.testing.assert_allclose(found[1], wave[50:150], atol=0.02)


def test_sound_that_is_shorter_than_a_window_is_refused(tmp_path):
    from scipy.io import wavfile

    wavfile.write(tmp_path / "a.wav", 8000, np.zeros(50, np.int16))
    with pytest.raises(SourceError, match="window"):
        open_source(tmp_path / "a.wav")
    with pytest.raises(ArgumentError, match="window"):
        open_source(tmp_path / "a.wav", window=0)


def edf(path, levels):
    """A recording (channels, samples) at 100 Hz, in records of a second."""
    channels, samples = levels.shape

    def field(*values, width):
        return "".join(str(value).ljust(width)[:width] for value in values).encode()

    ones = [1] * channels
    head = field("0", width=8) + field("x", "x", width=80) + field("01.01.20", "00.00.00", width=8)
    head += field(256 * (1 + channels), width=8) + field("", width=44)
    head += field(samples // 100, 1, width=8) + field(channels, width=4)
    head += field(*(f"EEG {i}" for i in range(channels)), width=16) + field(*ones, width=80)
    head += field(*["uV" for _ in ones], width=8)
    for limit in (-32768, 32767, -32768, 32767):
        head += field(*[limit for _ in ones], width=8)
    head += field(*["" for _ in ones], width=80) + field(*[100 for _ in ones], width=8)
    head += field(*["" for _ in ones], width=32)
    records = levels.reshape(channels, -1, 100).transpose(1, 0, 2)
    path.write_bytes(head + records.astype("<i2").tobytes())


@pytest.fixture
def eeg():
    return np.random.default_rng(3).integers(-3000, 3000, size=(3, 1000))


@pytest.mark.parametrize("ending", ["edf", "fif"])
def test_a_recording_is_cut_into_windows_of_all_its_channels(tmp_path, eeg, ending):
    mne = pytest.importorskip("mne")
    path = tmp_path / f"a_raw.{ending}"
    if ending == "edf":
        edf(path, eeg)
    else:
        info = mne.create_info([*"abc", "trigger"], 100.0, ["eeg"] * 3 + ["stim"])
        levels = np.r_[1e-6 * eeg, np.ones((1, 1000))]
        mne.io.RawArray(levels, info, verbose="error").save(path, fmt="double", verbose="error")
    source = open_source(path, window=50, hop=25)
    assert source.feature_shape == (3, 50)
    found = rows(source)
    assert found.shape == (39, 150)
    np.testing.assert_allclose(found[2].reshape(3, 50), 1e-6 * eeg[:, 50:100], atol=1e-12)
    few = source.rows([38, 0])
    np.testing.assert_array_equal(few, found[[38, 0]])
    with pytest.raises(SourceError, match="window of 1001"):
        open_source(path, window=1001)


def test_a_recording_of_volts_gives_a_dictionary(tmp_path, eeg):
    pytest.importorskip("mne")
    edf(tmp_path / "a.edf", eeg)
    model = shoal.DictionaryAutoencoder(8, 2, random_state=0).fit(tmp_path / "a.edf")
    assert model.components_.shape == (8, 3 * 128)
    assert np.isfinite(model.components_).all()
    assert model.score(tmp_path / "a.edf") > 0


def test_a_damaged_recording_is_read_or_refused(tmp_path, eeg):
    pytest.importorskip("mne")
    edf(tmp_path / "a.edf", eeg)
    whole = (tmp_path / "a.edf").read_bytes()
    rng = np.random.default_rng(0)
    for number in range(40):
        spoilt = bytearray(whole)
        if number % 4:
            at = rng.integers(900)
            spoilt[at : at + 6] = rng.bytes(6)
        else:
            del spoilt[rng.integers(len(whole)) :]
        (tmp_path / "b.edf").write_bytes(spoilt)
        with suppress(ShoalError):
            rows(open_source(tmp_path / "b.edf", window=10))


def files(folder):
    """One of each kind, as others write them."""
    from scipy.io import savemat, wavfile
    from scipy.sparse import random as some

    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("data", data=DATA[:100], chunks=(32, 12), compression="gzip")
    with h5py.File(folder / "b.h5ad", "w") as file:
        matrix, group = some(60, 12, 0.2, format="csr"), file.create_group("X")
        group.attrs["encoding-type"], group.attrs["shape"] = "csr_matrix", matrix.shape
        for part in ("data", "indices", "indptr"):
            group[part] = getattr(matrix, part)
    savemat(folder / "c.mat", {"X": DATA[:50]}, do_compression=True)
    savemat(folder / "d.mat", {"data": DATA[:50], "S": some(20, 12, 0.2, format="csc")})
    savemat(folder / "e.mat", {"S": some(20, 12, 0.2, format="csc")})
    wavfile.write(folder / "f.wav", 8000, (1000 * DATA.ravel()).astype(np.int16))
    return sorted(folder.iterdir())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_damaged_anywhere_is_read_or_refused(tmp_path):
    (tmp_path / "whole").mkdir()
    rng = np.random.default_rng(0)
    for path in files(tmp_path / "whole"):
        assert rows(open_source(path)).size
        whole, broken = path.read_bytes(), tmp_path / f"broken{path.suffix}"
        for _ in range(60):
            content = bytearray(whole)
            for _ in range(rng.integers(1, 6)):
                place = int(rng.integers(min(len(content), rng.choice([400, 2000, len(content)]))))
                content[place] = int(rng.choice([0, 255, 128, rng.integers(256)]))
            broken.write_bytes(content[: int(rng.choice([len(content), place + 1], p=[0.8, 0.2]))])
            with suppress(ShoalError):
                rows(open_source(broken))
