"""Detection against the metrics of the package that the benchmark came with, where installed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports in turn
    pytest.importorskip("sae_lens.synthetic", reason="the extra 'synth' isn't installed")
    from sae_lens.synthetic import evals

import torch

from shoal.diagnosis import detection


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("width", [7, 40, 90])
def test_scores_are_those_of_the_package(seed, width):
    rng = np.random.default_rng(seed)
    dictionary = rng.standard_normal((60, 24)).astype(np.float32)
    truth = (rng.random((3000, 60)) * (rng.random((3000, 60)) < 0.08)).astype(np.float32)
    order = rng.integers(0, 60, width)
    atoms = dictionary[order] + 0.4 * rng.standard_normal((width, 24)).astype(np.float32)
    codes = truth[:, order] * (rng.random((3000, width)) < 0.9)
    codes = (codes + (rng.random(codes.shape) < 0.01)).astype(np.float32)
    codes[:, 0] = 0.0
    if seed % 2:
        codes *= rng.choice([-1.0, 1.0], codes.shape).astype(np.float32)
    score = detection(codes, truth, atoms, dictionary)

    arrays = [torch.from_numpy(each) for each in (codes, truth, atoms, dictionary)]
    theirs = evals.compute_classification_metrics(*arrays)
    assert abs(score.f1 - theirs.f1_score) < 1e-6
    for name in ("precision", "recall", "accuracy"):
        assert abs(getattr(score, name) - getattr(theirs, name)) < 1e-6, name
    assert abs(score.mcc - evals.mean_correlation_coefficient(*arrays[2:])) < 1e-6
    assert abs(score.uniqueness - evals.feature_uniqueness(*arrays[2:])) < 1e-6
    shrinkage = evals.ShrinkageCalculator()
    shrinkage.add_batch(arrays[0] @ arrays[2], arrays[1] @ arrays[3])
    assert abs(score.shrinkage - shrinkage.compute()) < 1e-6
    counts, dead = evals.L0Calculator(), evals.DeadLatentsCalculator(width)
    counts.add_batch(arrays[0])
    dead.add_batch(arrays[0])
    assert abs(score.l0 - counts.compute()) < 1e-6
    assert score.dead == dead.compute()
