"""The worlds that theorems speak of: their facts, and a world made of what a model found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shoal.data import FittedPreprocessing, open_source, validate
from shoal.diagnosis import align
from shoal.diagnosis.matching import Signs
from shoal.generative import Custom, DiscreteSupport, GenerativeModel, coherence, world_of
from shoal.generative._checks import check_dictionary
from shoal.vocabulary import ArgumentError, active

__all__ = [
    "PreprocessedWorld",
    "WorldFacts",
    "aligned",
    "distances",
    "is_mixture",
    "is_signed",
    "open_dictionary",
    "open_world",
    "preprocessed_world",
    "unit_rows",
    "world_from_codes",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class WorldFacts:
    """What theorems ask of a world; made by :meth:`of`.

    Attributes
    ----------
    n_atoms, n_features, k : int
        m, n and the largest size of a support.
    coherence : float
        max |<A_i, A_j>|, i != j: mu / sqrt(n).
    mu : float
        sqrt(n) times that, Nguyen et al. 2018, Definition 1.
    spectral_norm : float
        The largest singular value of A.
    spectral_bound : float
        sqrt(m / n), which the spectral norm is to be of the order of.
    p_min, p_max : float
        Least and largest probability of a unit.
    kappa1, kappa2, a1, a2, noise : float
        Moments and bounds of a non-zero, and the standard deviation of the noise.
    truth : bool
        False where W stands for A*, as nobody knows A*.
    """

    n_atoms: int
    n_features: int
    k: int
    expected_k: float
    coherence: float
    mu: float
    spectral_norm: float
    spectral_bound: float
    p_min: float
    p_max: float
    kappa1: float
    kappa2: float
    a1: float
    a2: float
    noise: float
    truth: bool = True

    @classmethod
    def of(cls, world: GenerativeModel, *, truth: bool = True) -> WorldFacts:
        """The facts of `world`."""
        rows = world.dictionary.astype(np.float64)
        largest, p = coherence(world.dictionary), world.p
        return cls(
            n_atoms=world.n_atoms,
            n_features=world.n_features,
            k=world.k,
            expected_k=world.expected_k,
            coherence=largest,
            mu=float(np.sqrt(world.n_features)) * largest,
            spectral_norm=float(np.linalg.norm(rows, 2)),
            spectral_bound=float(np.sqrt(world.n_atoms / world.n_features)),
            p_min=float(p.min()),
            p_max=float(p.max()),
            kappa1=float(world.kappa1),
            kappa2=float(world.kappa2),
            a1=float(world.a1),
            a2=float(world.a2),
            noise=float(world.noise),
            truth=truth,
        )


def is_signed(world: GenerativeModel) -> bool:
    """Whether codes of `world` may be negative, so that atoms are known up to sign only."""
    return bool(world.values.signed)


def is_mixture(world: GenerativeModel) -> bool:
    """Whether one unit at a time is active, and its code 1: a mixture of Gaussians."""
    return bool(world.k == 1 and world.kappa1 == world.kappa2 == 1)


def aligned(world: GenerativeModel, dictionary: Any, *, unit: bool = True) -> Floats:
    """W (m, n) in the order, and with the signs, of the world's atoms: pi(W), float64.

    Parameters
    ----------
    world : GenerativeModel
        The truth.
    dictionary : array_like of shape (m, n)
        W.
    unit : bool
        Whether its rows must have length 1 (Nguyen et al.) or may have any (Rangamani et al.).

    Raises
    ------
    ArgumentError
        If W isn't a finite matrix of the world's shape, or where `unit` has rows that aren't.

    Examples
    --------
    >>> import numpy as np
    >>> from shoal.generative import SparseCoding, random_dictionary
    >>> from shoal.theory import aligned
    >>> world = SparseCoding(random_dictionary(8, 16, random_state=0), sparsity=2)
    >>> bool(np.allclose(aligned(world, -world.dictionary[::-1]), world.dictionary))
    True
    """
    rows = check_dictionary(dictionary, tolerance=1e-4 if unit else np.inf).astype(np.float64)
    if rows.shape != world.dictionary.shape:
        needed = f"{world.dictionary.shape}, as the world's: one atom for each true one"
        raise ArgumentError("dictionary", f"shape {rows.shape}", needed)
    signs: Signs = "free" if is_signed(world) else "fixed"
    truth = world.dictionary.astype(np.float64)
    # In place already: the assignment of a large dictionary is a matter of seconds.
    own = np.einsum("mn,mn->m", rows, truth)
    if (own > 0).all():
        cosines = rows @ truth.T
        rest = np.abs(cosines) if signs == "free" else cosines
        if (rest.argmax(axis=1) == np.arange(len(rows))).all():
            return np.asarray(rows)
    return np.asarray(align(rows, truth, signs=signs))


def distances(world: GenerativeModel, weights: Floats) -> Floats:
    """|W_i - A_i| of each atom (m,), W aligned."""
    return np.linalg.norm(weights - world.dictionary.astype(np.float64), axis=1)


def open_world(source: Any) -> GenerativeModel | None:
    """The world behind a source; None where the source doesn't know its truth.

    Parameters
    ----------
    source : path, array-like or Source
        What `shoal generate` wrote: then its laws are exact. With a true dictionary and codes
        beside the data, frequencies and values are those of the codes.
    """
    laws = _laws_beside(source)
    data = open_source(source)
    if data.truth is not None and laws is not None:
        made = world_of(data.truth.dictionary, laws)
        if not isinstance(made, GenerativeModel):
            needed = "one with a law of the non-zeros: theorems speak of no families and no offset"
            raise ArgumentError("WORLD", f"a {type(made).__name__}", needed)
        return made
    if data.truth is None or data.truth.codes is None or data.n_samples is None:
        return None
    rows = data.rows(np.arange(min(data.n_samples, _MOST_ROWS), dtype=np.intp))
    return world_from_codes(data.truth.dictionary, data.truth.codes[: len(rows)], data=rows)


def open_dictionary(path: str | Path, key: str | None = None) -> Floats:
    """Atoms as rows (m, n), float64, from a .npy, .npz or .safetensors file; of any length.

    Parameters
    ----------
    path : path
        The file.
    key : str, optional
        Which array, in an .npz or .safetensors file; by default the one named `dictionary`, or
        the only one there is.

    Raises
    ------
    ArgumentError
        That names `dictionary` or `key`, if the file, or an array in it, is none such.
    """
    path = Path(path)
    needed = "a run folder, or a .npy, .npz or .safetensors file of atoms as rows"
    if not path.is_file() or path.suffix.lower() not in (".npy", ".npz", ".safetensors"):
        found = f"no file at {str(path)!r}" if not path.exists() else repr(path.name)
        raise ArgumentError("dictionary", found, needed)
    try:
        source = open_source(path, key=key or _named_dictionary(path))
        validate(source)
        rows = source.rows(np.arange(source.n_samples or 0, dtype=np.intp))
    except ArgumentError as error:
        name = error.argument if error.argument == "key" else "dictionary"
        needed = error.needed
        if needed.startswith("an array named data"):
            needed = "an array named dictionary, or a key (--key) that names one of them"
        raise ArgumentError(name, error.found, needed) from None
    return rows.astype(np.float64)


def _named_dictionary(path: Path) -> str | None:
    """ "dictionary" where the file has an array of that name."""
    try:
        if path.suffix.lower() == ".npz":
            # An open file, since NumPy leaves its own open when the zip turns out broken.
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
                names = list(archive.files)
        elif path.suffix.lower() == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="np") as file:
                names = list(file.keys())
        else:
            return None
    except Exception:  # open_source says what is wrong with it
        return None
    return "dictionary" if "dictionary" in names else names[0] if len(names) == 1 else None


def unit_rows(rows: Floats) -> tuple[Floats, Floats]:
    """Rows divided by their lengths (m, n), and the lengths (m,).

    Raises
    ------
    ArgumentError
        If a row is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from shoal.theory import unit_rows
    >>> rows, lengths = unit_rows(np.array([[3.0, 4.0]]))
    >>> rows.tolist(), lengths.tolist()
    ([[0.6, 0.8]], [5.0])
    """
    lengths = np.linalg.norm(rows, axis=1)
    if not (lengths > 0).all():
        dead = int(np.flatnonzero(~(lengths > 0))[0])
        raise ArgumentError("dictionary", f"atom {dead} of length 0", "atoms that have a direction")
    return rows / lengths[:, None], lengths


class PreprocessedWorld(NamedTuple):
    """A world as data that went through the linear part of a preprocessing have it."""

    world: GenerativeModel
    lengths: Floats  # (m,), of the true atoms there, before they are divided by them
    noise: tuple[float, float]  # least and largest standard deviation of the noise, by direction


def preprocessed_world(world: GenerativeModel, fitted: FittedPreprocessing) -> PreprocessedWorld:
    """The world that a linear map makes of another: y T, with atoms A_i T.

    y = sum x_i A_i + noise becomes sum (x_i l_i) (A_i T / l_i) + noise T, with l_i = |A_i T|. What
    centring takes away is a constant, of which no theorem speaks; it is left in. Where the l_i
    differ, so do the laws of the units; theorems know one law for all, and it is that of x l with
    l drawn from all l_i as often as units are active. Noise that the map stretches is taken as
    spherical, of the same mean square.

    Parameters
    ----------
    world : GenerativeModel
        The truth.
    fitted : FittedPreprocessing
        Of a run.

    Returns
    -------
    PreprocessedWorld

    Raises
    ------
    ArgumentError
        If it is no linear map, as "samples" isn't, has other features, or leaves nothing of an
        atom.

    Examples
    --------
    >>> from shoal.data import Preprocessing
    >>> from shoal.generative import SparseCoding
    >>> world = SparseCoding(np.eye(4), 2, low=1.0, high=1.0)
    >>> fitted = Preprocessing("scale").fit(world.sample(1000, 0).data)
    >>> there = preprocessed_world(world, fitted)
    >>> bool(np.allclose(there.world.dictionary, np.eye(4))), there.world.k
    (True, 2)
    """
    kind = fitted.spec.kind
    if kind == "none":
        return PreprocessedWorld(world, np.ones(world.n_atoms), (world.noise, world.noise))
    if kind == "samples":
        found = "a run with preprocessing 'samples', which divides each sample by its own scale"
        needed = "a run with a linear one (none, center, scale, whiten): atoms have no image here"
        raise ArgumentError("dictionary", found, needed)
    truth = world.dictionary.astype(np.float64)
    if fitted.n_features != truth.shape[1]:
        found = f"a run on {fitted.n_features} features"
        raise ArgumentError("dictionary", found, f"{truth.shape[1]}, as the world's")
    nothing = np.zeros((1, truth.shape[1]))
    rows, lengths = unit_rows(fitted.apply(truth) - fitted.apply(nothing))
    directions = fitted.apply(np.eye(truth.shape[1])) - fitted.apply(nothing)  # T, (n, n)
    gains = np.linalg.svd(directions, compute_uv=False)
    noise = world.noise * float(np.sqrt(np.mean(gains**2)))
    law = _stretched(world, lengths)
    there = GenerativeModel(rows, world.support, law, noise)
    return PreprocessedWorld(
        there, lengths, (world.noise * float(gains.min()), world.noise * float(gains.max()))
    )


def _stretched(world: GenerativeModel, lengths: Floats) -> Custom:
    """The law of x l, l drawn from `lengths` (m,) as often as units are active."""
    values, share = world.values, world.p / world.p.sum()
    used = lengths[share > 0]

    def draw(rng: np.random.Generator, size: Any) -> Floats:
        return values.draw(rng, size) * rng.choice(lengths, size=size, p=share)

    return Custom(
        draw,
        kappa1=float(values.kappa1 * (share @ lengths)),
        kappa2=float(values.kappa2 * (share @ lengths**2)),
        a1=float(values.a1 * used.min()),
        a2=float(values.a2 * used.max()),
        signed=bool(values.signed),
    )


# Arbitrary: enough for the frequencies of pairs at a hundred atoms.
_MOST_ROWS = 20_000


def _laws_beside(source: Any) -> Any:
    """The laws in a file of `shoal generate`; None in any other."""
    if not isinstance(source, (str, Path)) or Path(source).suffix != ".npz":
        return None
    try:
        with np.load(source, allow_pickle=False) as archive:
            return json.loads(str(archive["laws"])) if "laws" in archive.files else None
    except (OSError, ValueError, BadZipFile):
        return None  # open_source says what is wrong with it


def world_from_codes(dictionary: Any, codes: Any, *, data: Any = None) -> GenerativeModel:
    """The world that a dictionary and codes on it amount to, where nobody knows the truth.

    Its supports are those of the codes, each as probable as it was frequent; its non-zeros are
    draws from theirs. Theorems can be asked about it, **with W in place of A***: what they then
    say is said of data that the model would generate, not of the data it was fitted on.

    Parameters
    ----------
    dictionary : array_like of shape (m, n)
        Unit rows.
    codes : array_like or scipy.sparse of shape (N, m)
        With at least one active unit.
    data : array_like of shape (N, n), optional
        What the codes leave of it is the noise; without it there is none.

    Returns
    -------
    GenerativeModel

    Raises
    ------
    ArgumentError
        If the codes are all 0, not finite, or of another number of units.
    """
    rows = check_dictionary(dictionary, tolerance=1e-4)
    given = codes if sparse.issparse(codes) else np.asarray(codes)
    if given.ndim != 2 or given.shape[1] != len(rows):
        raise ArgumentError("codes", f"shape {given.shape}", f"(N, {len(rows)}): one unit an atom")
    table = sparse.csr_array(given, copy=True)
    values = table.data[active(table.data)].astype(np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise ArgumentError("codes", "no finite non-zero", "codes with active units")
    table.eliminate_zeros()
    table.sort_indices()
    supports: dict[tuple[int, ...], int] = {}
    for start, stop in zip(table.indptr[:-1], table.indptr[1:], strict=True):
        units = tuple(table.indices[start:stop].tolist())
        supports[units] = supports.get(units, 0) + 1
    chances = np.array(list(supports.values())) / table.shape[0]
    magnitudes = np.abs(values)
    law = Custom(
        lambda rng, size: rng.choice(values, size=size),
        kappa1=float(values.mean()),
        kappa2=float((values**2).mean()),
        a1=float(magnitudes.min()),
        a2=float(magnitudes.max()),
        signed=bool((values < 0).any()),
    )
    support = DiscreteSupport(tuple(supports), tuple(chances.tolist()))
    noise = 0.0
    if data is not None:
        y = np.asarray(data, dtype=np.float64)
        if y.shape != (table.shape[0], rows.shape[1]):
            raise ArgumentError("data", f"shape {y.shape}", f"{(table.shape[0], rows.shape[1])}")
        left = float(np.sqrt(np.mean((y - table @ rows.astype(np.float64)) ** 2)))
        # Arbitrary: what is so small beside the data is rounding.
        noise = left if left > 1e-6 * float(np.sqrt(np.mean(y**2))) else 0.0
    return GenerativeModel(rows, support, law, noise)
