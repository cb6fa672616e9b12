"""The sparse autoencoders that language models are read with, trained end to end."""

from __future__ import annotations

from dataclasses import replace

from shoal.network.activations import Activation, BatchTopK, JumpReLU, TopK
from shoal.network.prefixes import Prefixes
from shoal.training.autoencoding import AutoencoderAdam
from shoal.training.recipes.recipe import Recipe
from shoal.training.revival import Revival
from shoal.training.schedules import DecayAtLast
from shoal.vocabulary import ArgumentError, check_count

__all__ = ["batch_topk", "jump_relu", "matryoshka", "topk"]

# Adam's step: see `AutoencoderAdam`. The last half of the steps are ever smaller.
_RATE = 0.08
# Arbitrary: passes over the data, and updates: from the first number of them to the second, but
# one pass at least.
_PASSES, _FEWEST, _LARGEST = 15, 600, 8000
_BATCH, _SMALLEST = 2048, 256
# A unit that so many updates pass by is dead; atoms that are replaced are not given up: there are
# to be as many as were asked for.
_EVERY, _TRIES = 25, 1_000_000


def _recipe(
    activation: Activation, n_components: int, n_samples: int | None, active: float | None = None
) -> Recipe:
    batch, n_steps = _BATCH, _LARGEST
    if n_samples is not None:
        batch = min(batch, max(_SMALLEST, 1 << max(1, n_samples // 8).bit_length() - 1), n_samples)
        wanted = max(_FEWEST, -(-_PASSES * n_samples // batch))
        n_steps = max(min(wanted, _LARGEST), -(-n_samples // batch))
    return Recipe(
        activation=activation,
        rule=AutoencoderAdam(DecayAtLast(_RATE, n_steps), active=active),
        n_steps=n_steps,
        batch_size=batch,
        revival=Revival(every=_EVERY, idle=_EVERY, duplicate_cosine=0.98, tries=_TRIES),
        untied=True,
        offset=True,
    )


def topk(model: str, n_components: int, k: int, n_samples: int | None) -> Recipe:
    """The k largest codes of each row: Gao et al. 2024 (arXiv:2406.04093).

    Parameters
    ----------
    model : str
        "nonnegative", or "sparse" for codes of largest magnitude.
    n_components, k : int
        Units m, and active units a row.
    n_samples : int or None
        Rows of the data; None for a stream.
    """
    check_count("k", k, high=n_components)
    return _recipe(TopK(k, signed=model == "sparse"), n_components, n_samples)


def batch_topk(model: str, n_components: int, k: int, n_samples: int | None) -> Recipe:
    """The k largest codes a row of a whole batch, which rows share: Bussmann et al. 2024.

    Afterwards one threshold stands for it. Parameters are those of :func:`topk`.
    """
    check_count("k", k, high=n_components)
    _check_nonnegative("batchtopk", model)
    return _recipe(BatchTopK(k), n_components, n_samples)


def matryoshka(model: str, n_components: int, k: int, n_samples: int | None) -> Recipe:
    """:func:`batch_topk` whose first atoms are to do by themselves: Bussmann et al. 2025.

    A thirty-second of the atoms, a sixteenth, an eighth, a quarter, half and all of them; others
    are given by ``replace(recipe, prefixes=Prefixes(sizes))``.
    """
    recipe = batch_topk(model, n_components, k, n_samples)
    sizes = sorted({max(1, n_components >> shift) for shift in range(6)})
    return replace(recipe, prefixes=Prefixes(tuple(sizes)))


def jump_relu(model: str, n_components: int, k: int, n_samples: int | None) -> Recipe:
    """A threshold for each unit, learned so that a row has k active units: Rajamanoharan 2024.

    Parameters are those of :func:`topk`.
    """
    check_count("k", k, high=n_components)
    _check_nonnegative("jumprelu", model)
    gate: Activation = JumpReLU(window=_WINDOW)  # type: ignore[assignment]
    return _recipe(gate, n_components, n_samples, active=k)


# Of a pre-activation about its threshold, in the unit of the rule.
_WINDOW = 1.0


def _check_nonnegative(name: str, model: str) -> None:
    if model != "nonnegative":
        found = f"{model!r} with recipe={name!r}"
        raise ArgumentError("model", found, "'nonnegative', as its codes are, or recipe='topk'")
