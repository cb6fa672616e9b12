"""A top-k sparse autoencoder as its trainers make it: untied, Adam, unit decoder atoms (torch).

Gao et al. 2024: codes are the k largest entries of W_e (y - b) (of magnitude, with sign, for
signed codes; else after a ReLU), the encoder starts as the decoder's transpose, atoms are brought
to unit length after every step. Dead units restart at badly explained samples, as in Bricken et
al. 2023; without that, it recovers less.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.recovery.datasets import Problem

REQUIRES = ("torch",)
EVERY = 25  # steps between restarts of units that were dead since the last one


def settings(problem: Problem) -> dict[str, Any]:
    large = problem.n_atoms >= 1000
    return {
        "learning_rate": 3e-3 if large else 1e-2,
        "batch_size": 1024 if large else 256,
        "k": problem.k,
    }


def run(data: NDArray, problem: Problem, seed: int) -> Iterator[Any]:
    chosen = settings(problem)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.from_numpy(np.asarray(data, "float32"))
    start = rows[torch.randperm(len(rows), generator=generator)[: problem.n_atoms]]
    decoder = torch.nn.functional.normalize(start, dim=1).clone().requires_grad_()  # (m, n)
    encoder = decoder.detach().clone().requires_grad_()  # (m, n)
    optimiser = torch.optim.Adam([encoder, decoder], lr=chosen["learning_rate"])
    size = min(chosen["batch_size"], len(rows))
    fired = torch.zeros(problem.n_atoms, dtype=torch.bool)
    number = 0
    yield decoder.detach()
    while True:
        for part in torch.randperm(len(rows), generator=generator).split(size):
            batch = rows[part]
            scores = batch @ encoder.T  # (B, m)
            if problem.model == "sparse":
                units = scores.abs().topk(problem.k, dim=1, sorted=False).indices
                values = scores.gather(1, units)
            else:
                values, units = scores.relu().topk(problem.k, dim=1, sorted=False)
            codes = torch.zeros_like(scores).scatter(1, units, values)
            residual = batch - codes @ decoder
            loss = residual.square().sum(dim=1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            number += 1
            with torch.no_grad():
                decoder /= decoder.norm(dim=1, keepdim=True)
                fired[units[values != 0]] = True
                if number % EVERY == 0:
                    _restart(encoder, decoder, optimiser, ~fired, batch, residual)
                    fired.zero_()
            yield decoder.detach()


def _restart(
    encoder: torch.Tensor,
    decoder: torch.Tensor,
    optimiser: torch.optim.Optimizer,
    dead: torch.Tensor,
    batch: torch.Tensor,
    residual: torch.Tensor,
) -> None:
    """Dead units become residuals of the worst explained samples, with fresh moments."""
    where = dead.nonzero()[: len(batch), 0]
    if not len(where):
        return
    worst = residual.square().sum(dim=1).topk(len(where)).indices
    atoms = torch.nn.functional.normalize(residual[worst], dim=1)
    for matrix in (encoder, decoder):
        matrix[where] = atoms
        for moment in ("exp_avg", "exp_avg_sq"):
            optimiser.state[matrix][moment][where] = 0.0
