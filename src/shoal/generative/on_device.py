"""The same laws in torch, dense in blocks of rows: for a GPU, where that is the fastest way."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array, vstack

from shoal.generative.copula import CopulaSupports
from shoal.generative.forests import Forest
from shoal.vocabulary import ArgumentError

__all__ = ["sample_on"]

ENTRIES = 1 << 27  # arbitrary; units times rows of a block: half a GB each of a few arrays


def sample_on(world: Any, n_samples: int, device: Any, seed: int) -> tuple[Any, Any]:
    """Signals without noise or faults: data (N, n) on the device, and codes (N, F) as CSR."""
    import torch

    law, values = world.support, world._by_unit
    if not isinstance(law, CopulaSupports) or not hasattr(values, "deviation"):
        needed = "CopulaSupports and RectifiedGaussian, which are drawn there; or no device"
        found = f"{type(law).__name__} and {type(world.values).__name__}"
        raise ArgumentError("device", found, needed)
    m = world.n_atoms

    def there(array: Any) -> Any:
        shape = np.shape(array) or (m,)  # one number stands for all units
        return torch.from_numpy(np.broadcast_to(array, shape).astype(np.float32)).to(device)

    generator = torch.Generator(device=device).manual_seed(seed)
    draw: Any = {"generator": generator, "device": device}
    weights, levels = there(law._factor / law.own[:, None]), there(law.thresholds / law.own)
    mean, spread = there(values.mean), there(values.deviation)
    rows, families = there(world.dictionary), _families(world.forest, device)
    data = torch.empty((n_samples, rows.shape[1]), dtype=torch.float32, device=device)
    codes = []
    size = max(1, ENTRIES // m)
    for start in range(0, n_samples, size):
        count = min(size, n_samples - start)
        factors = torch.randn((count, weights.shape[1]), **draw)
        normals = torch.randn((count, m), **draw)
        # g > t, divided by the length of what each normal has of its own
        fires = normals > levels - factors @ weights.T
        value = torch.randn((count, m), out=normals, **draw).mul_(spread).add_(mean).relu_()
        value *= fires
        for parents, children in families:  # (P,), (P, size); from the roots down
            own = value[:, children]  # (B, P, size)
            if world.forest.exclusive and children.shape[1] > 1:
                lots = torch.rand(own.shape, **draw) * (own > 0)
                own = own * (lots == lots.amax(dim=2, keepdim=True))
            above = value[:, parents]
            gate = above / mean[parents] if world.forest.scaled else (above > 0).float()
            value[:, children] = own * gate[..., None]
        torch.matmul(value, rows, out=data[start : start + count])
        there_, units = value.nonzero(as_tuple=True)
        entries = value[there_, units]
        ends = torch.bincount(there_, minlength=count).cumsum(0)
        starts = np.concatenate([[0], ends.cpu().numpy()])
        parts = (entries.cpu().numpy(), units.to(torch.int32).cpu().numpy(), starts)
        codes.append(csr_array(parts, shape=(count, m)))
    return data, vstack(codes, format="csr")


def _families(forest: Forest | None, device: Any) -> list[tuple[Any, Any]]:
    """Parents and their children, by depth and by how many there are."""
    import torch

    if forest is None:
        return []
    return [
        (torch.from_numpy(parents).to(device), torch.from_numpy(children).to(device))
        for parents, children in forest.families()
    ]
