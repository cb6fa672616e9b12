"""Sparse autoencoders as their trainers make them, in plain torch: untied, Adam, unit decoder.

x = s(relu((y - c) E^T + b)), y_hat = x D + c; the loss is the squared error of y_hat, for
Matryoshka summed over prefixes of the units, plus 1/32 of what the dead units' own largest scores
leave of the residual (Gao et al. 2024). `s` keeps the k largest of each row (TopK, Gao et al.
2024) or the B k largest of a batch (BatchTopK, Bussmann et al. 2024), for new rows all above the
running mean of the least value kept.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from benchmarks.worlds.peers import Fitted, Task

RATE = 1e-3  # decays linearly over the last third
BATCH = 1024
DEAD = 200  # steps without firing
STEPS = 6000


def _keep(scores: torch.Tensor, k: int, by_batch: bool) -> torch.Tensor:
    flat = scores.flatten() if by_batch else scores
    count = k * len(scores) if by_batch else k
    values, places = flat.topk(min(count, flat.shape[-1]), dim=-1, sorted=False)
    return torch.zeros_like(flat).scatter(-1, places, values).reshape(scores.shape)


def train(task: Task, *, by_batch: bool, prefixes: list[int]) -> Fitted:
    """Fit one; `prefixes` are the widths whose reconstructions count, the last of them W."""
    generator = torch.Generator().manual_seed(task.seed)
    rows = torch.from_numpy(task.data)
    n, device = rows.shape[1], torch.device(task.device)
    start = normalize(torch.randn(task.width, n, generator=generator), dim=1).to(device)
    decoder, encoder = start.clone(), start.clone()
    bias, offset = torch.zeros(task.width, device=device), rows.mean(dim=0).to(device)
    parts = [decoder, encoder, bias, offset]
    for part in parts:
        part.requires_grad_()
    steps = task.steps or STEPS
    optimiser = torch.optim.Adam(parts, lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, 3 * (1 - step / steps))
    )
    silent = torch.zeros(task.width, device=device)
    least = None
    for _ in range(steps):
        chosen = torch.randint(len(rows), (min(BATCH, len(rows)),), generator=generator)
        batch = rows[chosen].to(device)
        scores = ((batch - offset) @ encoder.T + bias).relu()
        codes = _keep(scores, task.k, by_batch)
        made, loss, begin = offset.expand_as(batch), batch.new_zeros(()), 0
        for end in prefixes:
            made = made + codes[:, begin:end] @ decoder[begin:end]
            loss = loss + (batch - made).square().sum(dim=1).mean()
            begin = end
        loss = loss / len(prefixes)
        dead = silent > DEAD
        n_dead = int(dead.sum())
        if n_dead:
            own = _keep(scores[:, dead], min(n // 2, n_dead), by_batch=False)
            left = (batch - made).detach() - own @ decoder[dead]
            loss = loss + left.square().sum(dim=1).mean() / 32
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            decoder.copy_(normalize(decoder, dim=1))
            fired = (codes > 0).any(dim=0)
            silent = torch.where(fired, 0.0, silent + 1)
            if by_batch:
                now = codes[codes > 0].min() if fired.any() else codes.new_zeros(())
                least = now if least is None else least + 0.01 * (now - least)
    decoder, encoder, bias, offset = (part.detach() for part in parts)

    def encode(new: NDArray[Any]) -> Any:
        from scipy.sparse import csr_array, vstack

        blocks = []
        for block in torch.from_numpy(new).split(8192):
            scores = ((block.to(device) - offset) @ encoder.T + bias).relu()
            if by_batch:
                codes = torch.where(scores > least, scores, 0.0)
            else:
                codes = _keep(scores, task.k, by_batch=False)
            blocks.append(csr_array(codes.cpu().numpy()))
        return vstack(blocks, format="csr")

    return Fitted(
        decoder.cpu().numpy(),
        offset.cpu().numpy(),
        {"encoder": encode},
        rows_seen=steps * min(BATCH, len(rows)),
        settings={"steps": steps, "rate": RATE, "batch": BATCH, "k": task.k, "prefixes": prefixes},
    )


def nested(width: int) -> list[int]:
    """Five widths, each twice the one before, up to W."""
    return sorted({max(1, width >> shift) for shift in range(5)})
