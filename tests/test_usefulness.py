"""A posterior that is of no use to a design is noticed: by plain sums, by its rate of errors, and by the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from nogs.evaluation.usefulness import usefulness
from staged import Stages
from tiny import GEOMETRY, driver, write_npz

UNSURE = math.log(1 / 2)


def binary(log_probs: list[list[float]]) -> Tensor:
    """Log-probabilities [n, T, 2] whose first class has these."""
    first = torch.tensor(log_probs, dtype=torch.float64)
    return torch.stack((first, torch.log1p(-first.exp())), dim=-1)


def test_losses_are_means_over_glimpses_and_images() -> None:
    labels = torch.tensor([0, 1, 0, 0])
    designed = binary([[UNSURE, math.log(0.9)]] * 4)
    found = usefulness(designed, binary([[UNSURE, UNSURE]] * 4), labels)
    right, wrong = (math.log(2) - math.log(0.9)) / 2, (math.log(2) - math.log(0.1)) / 2
    assert found.images == 4
    assert found.designed_nll_nats == pytest.approx((3 * right + wrong) / 4)
    assert found.random_nll_nats == pytest.approx(math.log(2))
    assert found.chance_nll_nats == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))


def test_what_a_posterior_is_no_better_than() -> None:
    labels = torch.arange(100) % 2

    def answers(right: float) -> Tensor:
        """The probability of the right class, the same for all images and both glimpses."""
        return binary([[math.log(right if label == 0 else 1 - right)] * 2 for label in labels.tolist()])

    expected = {
        (0.9, 0.6): "useful",
        (0.6, 0.6): "no better than random locations",
        (0.6, 0.9): "no better than random locations",
        (0.5, 0.3): "no better than chance",
        (0.3, 0.2): "no better than chance",
    }
    for (designed, random), worth in expected.items():
        found = usefulness(answers(designed), answers(random), labels)
        assert found.worth == worth
        line = found.warning()
        assert (line is None) == (worth == "useful")
        assert line is None or ("\n" not in line and f"{found.designed_nll_nats:.3f} nats designed" in line)


def test_a_difference_of_noise_is_none() -> None:
    """Of 2,000 posteriors of equal expected losses 2.3 % seem useful; five standard errors more are allowed (3e-7)."""
    generator, trials, labels = Generator().manual_seed(0), 2000, torch.arange(200) % 2
    useful = 0
    for _ in range(trials):
        right = 0.8 + 0.15 * torch.rand(2, len(labels), 1, generator=generator, dtype=torch.float64)
        probs = torch.where((labels == 0)[:, None], right, 1 - right)
        designed, random = torch.stack((probs, 1 - probs), dim=-1).log().unbind()
        useful += usefulness(designed, random, labels).worth != "no better than random locations"
    assert useful / trials < 0.023 + 5 * math.sqrt(0.023 * 0.977 / trials)


def test_a_search_records_it_and_warns_in_one_line(stages: Stages, tmp_path: Path) -> None:
    recorded = json.loads((stages.folder / "sequences" / "usefulness.json").read_text())
    results = json.loads((stages.folder / "evaluation" / "results.json").read_text())["sequences"]
    assert recorded["designed_nll_nats"] == pytest.approx(sum(results["nll_nats_by_glimpse"]) / 2, abs=1e-6)
    assert recorded["random_nll_nats"] == pytest.approx(sum(results["random_nll_nats_by_glimpse"]) / 2, abs=1e-6)
    assert (results["worth"], results["chance_nll_nats"]) == (recorded["worth"], recorded["chance_nll_nats"])
    data = ("--data", f"npz:{write_npz(tmp_path / 'images.npz')}")
    fit = (*data, *GEOMETRY, "--annotate", 30, "--iterations", 1, "--out", tmp_path / "posterior")
    assert driver().run("fit-posterior", *fit).code == 0
    assert driver().run("build-bank", *data, "--out", tmp_path / "bank").code == 0
    where = ("--posterior", tmp_path / "posterior", "--bank", tmp_path / "bank", "--out", tmp_path / "sequences")
    ended = driver().run("search", *where)
    assert ended.code == 0
    warnings = [line for line in ended.err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: the posterior is no better than ")
    assert json.loads((tmp_path / "sequences" / "usefulness.json").read_text())["worth"] != "useful"
