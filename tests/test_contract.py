"""results.json has the keys and shapes of the contract, and the values that were logged and recorded."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import nogs
import nogs.stages.search
from nogs.glimpses.fovea import look
from nogs.runs.device import chance
from nogs.sequences.table import load_sequences
from nogs.specs import PosteriorSpec
from nogs.weights import load_network
from staged import ANNOTATED, TESTED, Stages, run_of
from tiny import CLASSES, T

Shape = Callable[[Any], bool]


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def share(value: Any) -> bool:
    return number(value) and 0 <= value <= 1


def maybe(shape: Shape) -> Shape:
    return lambda value: value is None or shape(value)


def list_of(count: int, shape: Shape) -> Shape:
    return lambda value: isinstance(value, list) and len(value) == count and all(map(shape, value))


def by_glimpse(shape: Shape) -> Shape:
    return list_of(T, shape)


CONTRACT: dict[str, Any] = {
    "schema": lambda value: value == 1,
    "data": lambda value: value.startswith("npz:"),
    "task": lambda value: value is None,
    "classes": lambda value: value == list(CLASSES),
    "target_nll_nats": number,
    "posterior": {
        "seconds": number,
        "nll_nats_by_glimpse": by_glimpse(number),
        "accuracy_by_glimpse": by_glimpse(share),
    },
    "sequences": {
        "count": lambda value: value == ANNOTATED,
        "seconds": number,
        "posterior_evaluations": lambda value: isinstance(value, int) and value > 0,
        "nll_nats_by_glimpse": by_glimpse(number),
        "random_nll_nats_by_glimpse": by_glimpse(number),
        "shuffled_nll_nats_by_glimpse": by_glimpse(number),
    },
}
"""shared/contract.md, word by word. ``methods`` is checked for every method."""


def of_method(seeds: int) -> dict[str, Shape]:
    return {
        "seeds": list_of(seeds, number),
        "iterations_to_converge": list_of(seeds, number),
        "seconds_to_converge": list_of(seeds, number),
        "iterations_to_target": list_of(seeds, maybe(number)),
        "seconds_to_target": list_of(seeds, maybe(number)),
        "test_accuracy": list_of(seeds, share),
        "test_balanced_accuracy": list_of(seeds, share),
        "test_nll_nats": list_of(seeds, number),
        "test_accuracy_by_glimpse": list_of(seeds, by_glimpse(share)),
        "adaptivity_nats_by_glimpse": list_of(seeds, by_glimpse(number)),
        "pixels_read_share": list_of(seeds, share),
        "macs_by_glimpse": by_glimpse(lambda value: isinstance(value, int) and value > 0),
    }


BEYOND = {
    "posterior": {"calibration_error_by_glimpse"},
    "sequences": {
        "accuracy_by_glimpse",
        "random_accuracy_by_glimpse",
        "random_calibration_error_by_glimpse",
        "shuffled_accuracy_by_glimpse",
        "shuffled_calibration_error_by_glimpse",
        "calibration_error_by_glimpse",
        "effective_sample_size_by_glimpse",
        "chance_nll_nats",
        "worth",
    },
    "methods": {
        "sampled_test_accuracy",
        "sampled_test_balanced_accuracy",
        "sampled_test_nll_nats",
        "test_equal_prior_balanced_accuracy",
        "test_equal_prior_balanced_accuracy_by_glimpse",
        "test_auroc",
        "best_validation_nll_nats",
        "iterations_to_best_seed",
        "iterations_trained",
        "seconds_trained",
        "wall_seconds_trained",
        "test_balanced_accuracy_by_glimpse",
        "test_accuracy_by_class",
        "test_confusion",
        "mean_accuracy_by_class",
        "macs_by_part",
        "pixels_read_share_by_glimpse",
        "means",
        "means_by_glimpse",
    },
}
"""Keys that the contract does not have; it lets us add some, but none by accident."""


def check(found: dict[str, Any], shapes: dict[str, Shape], beyond: set[str]) -> None:
    assert found.keys() == shapes.keys() | beyond
    for key, shape in shapes.items():
        assert shape(found[key]), f"{key}: {found[key]}"


def test_results_have_the_keys_and_shapes_of_the_contract(stages: Stages) -> None:
    results = json.loads((stages.folder / "evaluation" / "results.json").read_text())
    assert results.keys() == CONTRACT.keys() | {
        "methods",
        "test",
        "best_seed_nll_nats",
        "target_is_chance",
        "comparisons",
        "end_to_end",
        "linear",
        "stopping_by_threshold",
    }
    for key, shape in CONTRACT.items():
        if isinstance(shape, dict):
            check(results[key], shape, BEYOND[key])
        else:
            assert shape(results[key]), f"{key}: {results[key]}"
    assert results["methods"].keys() == {"ram", "ps-nogs"}
    for name, seeds in (("ram", [1, 0]), ("ps-nogs", [0])):
        check(results["methods"][name], of_method(len(seeds)), BEYOND["methods"])
        assert results["methods"][name]["seeds"] == seeds


def test_results_are_what_the_runs_logged_and_the_evaluation_recorded(stages: Stages) -> None:
    evaluation = run_of(stages, "evaluation")
    results = json.loads((evaluation.path / "results.json").read_text())
    data = nogs.load(stages.source)
    best = [min(row["nll_nats"] for row in run_of(stages, name).rows()) for name in ("ram-1", "ram-0")]
    assert results["target_nll_nats"] == pytest.approx(sum(best) / 2 + 0.01)
    for place, (name, record) in enumerate((("ram", "ram-seed1"), ("ram", "ram-seed0"), ("ps-nogs", "ps-nogs-seed0"))):
        seen = evaluation.load_tensors(record)
        scores, which = results["methods"][name], place % 2
        assert torch.equal(seen["images"], data.members("test"))
        assert torch.equal(seen["labels"], data.labels[data.members("test")])
        assert seen["cells"].shape == (TESTED, T)
        assert seen["log_probs"].shape == (TESTED, T, len(CLASSES))
        probs, labels = seen["log_probs"].exp().numpy(), seen["labels"].numpy()
        assert probs.sum(-1) == pytest.approx(1, abs=1e-5)
        right = probs.argmax(-1) == labels[:, None]
        assert scores["test_accuracy_by_glimpse"][which] == pytest.approx(right.mean(0).tolist())
        assert scores["test_accuracy"][which] == pytest.approx(right[:, -1].mean())
        by_class = [right[labels == c, -1].mean() for c in range(len(CLASSES))]
        assert scores["test_balanced_accuracy"][which] == pytest.approx(np.mean(by_class))
        nll = -np.log(probs[np.arange(TESTED), -1, labels]).mean()
        assert scores["test_nll_nats"][which] == pytest.approx(nll, rel=1e-4)
        for t in range(T):
            shares = np.unique(seen["cells"][:, t], return_counts=True)[1] / TESTED
            adaptivity = scores["adaptivity_nats_by_glimpse"][which][t]
            assert adaptivity == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-6)
    seconds = [row["seconds"] for row in run_of(stages, "sequences").rows()]
    assert results["sequences"]["seconds"] == pytest.approx(sum(seconds))
    # Validation steers the training of the posterior (`--focus`), so it is part of what it costs.
    assert results["posterior"]["seconds"] == run_of(stages, "posterior").rows()[-1]["wall_seconds"]
    counted = results["end_to_end"]["ps-nogs"]
    parts = counted["posterior"] + counted["bank"] + counted["search"] + counted["training_at_least"]
    assert (counted["posterior"], counted["search"]) == (results["posterior"]["seconds"], pytest.approx(sum(seconds)))
    assert counted["total_at_least"] == pytest.approx(parts)
    assert len(results["end_to_end"]["ram"]["reached"]) == 2


def test_shuffled_loss_is_the_posteriors_along_another_images_sequence(stages: Stages) -> None:
    """Image by image, glimpse by glimpse, through the posterior's own forward pass."""
    _, posterior = load_network(run_of(stages, "posterior"), "model", kind=PosteriorSpec, device=torch.device("cpu"))
    sequences, data = load_sequences(run_of(stages, "sequences")), nogs.load(stages.source)
    order = torch.randperm(ANNOTATED, generator=chance(17)).tolist()
    lost = np.zeros(T)
    for place, image in enumerate(order):
        index, cells = sequences.images[image : image + 1], sequences.cells[order[place - 1]][None]
        for t in range(T):
            with torch.inference_mode():
                seen = look(data.images, posterior.grid, cells[:, : t + 1], index)
                lost[t] -= posterior(seen).logits[0].log_softmax(-1)[data.labels[index]].item() / ANNOTATED
    results = json.loads((stages.folder / "evaluation" / "results.json").read_text())
    assert results["sequences"]["shuffled_nll_nats_by_glimpse"] == pytest.approx(lost.tolist(), abs=1e-5)
    # Every image shares its first cell.
    assert results["sequences"]["nll_nats_by_glimpse"][0] == pytest.approx(lost[0], abs=1e-5)
    assert results["sequences"]["nll_nats_by_glimpse"][1] != pytest.approx(lost[1], abs=1e-5)
