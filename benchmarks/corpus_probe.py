"""What a linear probe on the mean log-mel spectrum makes of a corpus: its clips' classes, without any notion of time.

    python benchmarks/corpus_probe.py DATA_FOLDER

A corpus worth training on must not be solved by it. Trains on the strong and weak clips, tests on the test set; both
are compared with guessing.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings

import numpy as np
import torch

from pmam_plugin.data import ClipDataset, Prepared, prepare
from pmam_plugin.features import LogMel
from pmam_plugin.labels import LabelEncoder


def clip_features(data: Prepared, subsets: list[str], deviation: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean (and deviation) of the log-mel spectrum over time, ``(clips, mel)``, and presence, ``(clips, classes)``."""
    frontend = LogMel().eval()
    encoder = LabelEncoder(data.labels, 10.0, round(10 * data.clip_seconds), data.clip_seconds)
    dataset = ClipDataset(
        {name: data.manifests[name] for name in subsets}, encoder, frontend.sample_rate, data.clip_seconds
    )
    features, presence = [], []
    with torch.inference_mode():
        for index in range(len(dataset)):
            item = dataset[index]
            mel = frontend(item.wave.unsqueeze(0))[0]
            parts = [mel.mean(dim=1), mel.std(dim=1)] if deviation else [mel.mean(dim=1)]
            features.append(torch.cat(parts).numpy())
            presence.append(item.weak.numpy())
    return np.stack(features), np.stack(presence)


def probe(data: Prepared, deviation: bool) -> dict[str, float]:
    """Macro F1 at thresholds chosen by cross-validation, and macro average precision, of the probe and of guessing."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score, f1_score
    from sklearn.model_selection import GridSearchCV, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, labels = clip_features(data, [name for name in ("strong", "weak") if name in data.manifests], deviation)
    test, truth = clip_features(data, ["test"], deviation)
    scores, decided = np.zeros_like(truth), np.zeros_like(truth)
    for column in range(truth.shape[1]):
        steps = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        strengths = {"logisticregression__C": [0.003, 0.03, 0.3]}
        model = GridSearchCV(steps, strengths, scoring="average_precision", cv=4)
        inner = cross_val_predict(model, train, labels[:, column], cv=4, method="predict_proba")[:, 1]
        thresholds = np.quantile(inner, np.linspace(0, 0.98, 50))
        best = max(thresholds, key=lambda value: f1_score(labels[:, column], inner >= value))
        scores[:, column] = model.fit(train, labels[:, column]).predict_proba(test)[:, 1]
        decided[:, column] = scores[:, column] >= best
    prevalence = truth.mean(axis=0)
    return {
        "macro F1": f1_score(truth, decided, average="macro", zero_division=0),
        "macro F1, guessing": float(np.mean(2 * prevalence / (1 + prevalence))),
        "mean average precision": average_precision_score(truth, scores, average="macro"),
        "mean average precision, guessing": float(prevalence.mean()),
        **{
            f"F1 {label}": value
            for label, value in zip(data.labels, f1_score(truth, decided, average=None, zero_division=0))
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_folder")
    parser.add_argument(
        "--deviation", action="store_true", help="also give the probe the spectrum's deviation over time"
    )
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(arguments.data_folder, folder, selection="none", check="header")
        print(data.description)
        for name, value in probe(data, arguments.deviation).items():
            print(f"{name:36s} {100 * value:6.2f} %")


if __name__ == "__main__":
    main()
