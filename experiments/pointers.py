"""Print how often networks of `gain` are right, and after how many glimpses, stopped by their own gain maps.

    python experiments/pointers.py RUN...      (RUN: directories of `nogs train --method gain`)

One JSON object a run: the threshold, in nats, is the greatest that costs less than 0.3 points of accuracy on the
validation split; accuracy, mean glimpses, and the share of images whose first glimpse is the most frequent first cell
are on the test split.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from nogs.attention.choosers import greedy
from nogs.attention.classify import Answers, classify
from nogs.attention.gain import stop_by_gain_map
from nogs.attention.network import HardAttention
from nogs.config.groups import Source
from nogs.data import ImageSet, load
from nogs.runs.directory import read_run
from nogs.specs import HardAttentionSpec
from nogs.weights import load_network

THRESHOLDS_NATS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4)
TOLERANCE = 0.003


def stopped(network: HardAttention, data: ImageSet, split: str, *, glimpses: int, threshold: float) -> Answers:
    """Classify a split, each image until its greatest predicted gain is below ``threshold`` nats."""
    pixels = data.images[data.members(split)]
    return classify(network, pixels, glimpses=glimpses, choose=greedy, stop=stop_by_gain_map(threshold))


def figures(path: Path) -> dict[str, object]:
    """Return the threshold that validation chooses, and what it costs and gains on the test split."""
    run = read_run(path, "train")
    data = load(Source(**run.config["source"]))
    spec, network = load_network(run, "model", kind=HardAttentionSpec, device=torch.device("cpu"))

    def accuracy(answers: Answers, split: str) -> float:
        return (answers.class_logits.argmax(-1) == data.labels[data.members(split)]).float().mean().item()

    scores = {
        threshold: accuracy(stopped(network, data, "val", glimpses=spec.glimpses, threshold=threshold), "val")
        for threshold in THRESHOLDS_NATS
    }
    threshold = max(value for value, score in scores.items() if score >= scores[0.0] - TOLERANCE)
    answers = stopped(network, data, "test", glimpses=spec.glimpses, threshold=threshold)
    complete = stopped(network, data, "test", glimpses=spec.glimpses, threshold=0.0)
    return {
        "run": str(path),
        "threshold_nats": threshold,
        "test_accuracy": accuracy(answers, "test"),
        "mean_glimpses": answers.steps.float().mean().item(),
        "glimpses": torch.bincount(answers.steps, minlength=spec.glimpses + 1)[1:].tolist(),
        "first_cell": answers.cells[:, 0].mode().values.item(),
        "test_accuracy_without_stopping": accuracy(complete, "test"),
    }


def main() -> None:
    torch.set_num_threads(1)
    for path in sys.argv[1:]:
        with torch.inference_mode():
            print(json.dumps(figures(Path(path))), flush=True)


if __name__ == "__main__":
    main()
