"""A recipe of one's own: the k largest by Adam, with atoms that are replaced, and no polish."""

from shoal.network import TopK
from shoal.parts import register
from shoal.training import Adam, Constant, Recipe, Revival


@register("recipe", "plain-adam")
def plain_adam(model: str, n_components: int, k: int, n_samples: int | None) -> Recipe:
    """As a function of the kind of codes, the sizes m and k, and the rows (None for a stream)."""
    return Recipe(
        activation=TopK(k, signed=model == "sparse"),
        rule=Adam(Constant(0.01), tangent=True),
        n_steps=300,
        batch_size=256 if n_samples is None else min(256, n_samples),
        revival=Revival(50),
    )
