"""Compare our best policy with every other method on the same test images, after each glimpse.

    python experiments/every_policy.py EVALUATION...      (EVALUATION: directories of `nogs evaluate`)

Ours is the one of `OURS` with the least validation loss. Of each other method a row is printed: test accuracy after
each glimpse, the difference of ours from it, and how many of these differences a paired bootstrap over test images
finds above and below zero (95 % intervals). Accuracies are means over the seeds that both have.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from torch import Generator, Tensor

from nogs.evaluation.schema import Results, read_results
from nogs.runs.directory import RunDirectory, read_run

OURS = ("ps-nogs", "gain-nogs", "gain")
RESAMPLES = 2000


def right(run: RunDirectory, method: str, seeds: list[int]) -> Tensor:
    """Return whether each test image is right after each glimpse, [n, T], the mean over seeds."""
    each = []
    for seed in seeds:
        record = run.load_tensors(f"{method}-seed{seed}")
        each.append((record["log_probs"].argmax(-1) == record["labels"][:, None]).double())
    return torch.stack(each).mean(0)


def differences(ours: Tensor, other: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean difference after each glimpse, and the bounds of its 95 % interval, in points."""
    paired, n = 100 * (ours - other), len(ours)
    generator = Generator().manual_seed(0)
    means = torch.stack([paired[torch.randint(n, (n,), generator=generator)].mean(0) for _ in range(RESAMPLES)])
    low, high = (means.quantile(level, 0).numpy() for level in (0.025, 0.975))
    return paired.mean(0).numpy(), low, high


def listed(values: np.ndarray) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def rows(path: Path) -> Iterator[list[str]]:
    """Return the rows of one evaluation, whose directory is in a folder named after its label."""
    run = read_run(path, "evaluate")
    methods = read_results(run, Results).methods
    losses = {name: mean(methods[name].best_validation_nll_nats) for name in OURS if name in methods}
    best = min(losses, key=losses.__getitem__)
    for name, scores in methods.items():
        if not (seeds := [seed for seed in scores.seeds if seed in methods[best].seeds]):
            continue
        own = right(run, name, seeds)
        row = [path.absolute().parent.name, name, ", ".join(map(str, seeds)), listed(100 * own.mean(0).numpy())]
        if name == best:
            yield [*row, "ours", ""]
        else:
            difference, low, high = differences(right(run, best, seeds), own)
            yield [*row, listed(difference), f"{int((low > 0).sum())}, {int((high < 0).sum())}"]


def main() -> None:
    print("| | | seeds | test accuracy after 1, 2, ... glimpses, % | ours minus it | above, below zero |")
    print("|---|---|---|---|---|---|")
    for path in map(Path, sys.argv[1:]):
        for row in rows(path):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
