"""Tools for AnnData, in the way of scanpy's ``tl``: results are written into the object.

>>> # shoal.tl.dictionary(adata, n_components=64, n_nonzero_coefs=6)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from shoal.data import open_source
from shoal.estimators import DictionaryAutoencoder
from shoal.vocabulary import ArgumentError

__all__ = ["dictionary"]


def dictionary(
    adata: Any,
    n_components: int = 64,
    n_nonzero_coefs: int | str = 8,
    *,
    layer: str | None = None,
    key_added: str = "shoal",
    model: str = "nonnegative",
    method: str = "omp",
    **settings: Any,
) -> DictionaryAutoencoder:
    """Learn a dictionary of the observations of an AnnData, and write it into the object.

    Parameters
    ----------
    adata : anndata.AnnData of shape (n_obs, n_vars)
        Changed in place: ``obsm["X_shoal"]`` (n_obs, n_components) has the codes, sparse;
        ``varm["shoal"]`` (n_vars, n_components) the atoms as columns; ``uns["shoal"]`` the
        settings and the explained variance.
    n_components, n_nonzero_coefs
        As of :class:`shoal.DictionaryAutoencoder`.
    layer : str, optional
        Which of ``adata.layers``; ``adata.X`` by default. Counts want to be normalised and
        log-transformed first.
    key_added : str
        In place of "shoal".
    model : str
        As of :class:`shoal.DictionaryAutoencoder`.
    method : str
        How codes are found: as of :meth:`shoal.DictionaryAutoencoder.transform`.
    **settings
        More of :class:`shoal.DictionaryAutoencoder`, such as ``random_state=0``.

    Returns
    -------
    DictionaryAutoencoder
        The fitted model.

    Raises
    ------
    ArgumentError, SourceError
        What was given is no AnnData, or its values won't do. Nothing is written then.
    """
    if not all(hasattr(adata, part) for part in ("obsm", "varm", "uns", "layers")):
        raise ArgumentError("adata", f"a {type(adata).__name__}", "an AnnData object")
    source = open_source(adata, key=layer)
    settings = {"n_nonzero_coefs": n_nonzero_coefs, "model": model, **settings}
    estimator = DictionaryAutoencoder(n_components, sparse_output=True, **settings)
    estimator.fit(source)
    blocks, statistics = [], estimator.statistics()
    for data, codes, rebuilt in estimator.iter_coded(source, method):  # coded once, for both
        blocks.append(sparse.csr_array(codes))
        statistics.update(data, codes, rebuilt)
    adata.obsm[f"X_{key_added}"] = sparse.vstack(blocks, format="csr")
    adata.varm[key_added] = np.ascontiguousarray(estimator.components_.T)
    adata.uns[key_added] = {
        "params": {
            "n_components": len(estimator.components_),
            "n_nonzero_coefs": int(estimator.n_nonzero_coefs_),
            "model": model,
            "method": method,
            "layer": layer or "X",
        },
        "explained_variance": float(statistics.result().explained_variance),
    }
    return estimator
