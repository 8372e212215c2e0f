"""The focus of a posterior's training: the loss, the gain of each location by plain sums, and the draws."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator

import nogs.runs.device
from nogs.posterior.focus import draw_cells, focus_on, gain_by_location, nll
from nogs.posterior.protocol import distribution
from posteriors import CLASSES, L, make, noise, observe


@pytest.mark.parametrize("kind", ["lookahead", "avp-cnn"])
def test_at_first_it_looks_everywhere_alike_and_remembers_its_focus(kind: str) -> None:
    posterior = make(kind)
    torch.testing.assert_close(posterior.focus, torch.full((L,), 1 / 16))
    posterior.focus.copy_(torch.arange(L) / 120)
    other = make(kind, seed=1)
    other.load_state_dict(posterior.state_dict())
    torch.testing.assert_close(other.focus, torch.arange(L) / 120)


def test_nll_by_hand() -> None:
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0]], [[math.log(4), 0.0], [0.0, -math.log(9)]]])
    expected = [[-math.log(3 / 4), math.log(2)], [-math.log(4 / 5), -math.log(9 / 10)]]
    one = distribution(logits, multilabel=False)
    torch.testing.assert_close(nll(one, torch.tensor([[1], [0]])), torch.tensor(expected))
    # The same logits as those of two labels, whose losses are averaged: p = 3/4 for a logit of log 3, and so on.
    several = [
        [-(math.log(1 / 2) + math.log(3 / 4)) / 2, math.log(2)],
        [-(math.log(4 / 5) + math.log(1 / 2)) / 2, -(math.log(1 / 2) + math.log(9 / 10)) / 2],
    ]
    got = nll(distribution(logits, multilabel=True), torch.tensor([[[0, 1]], [[1, 0]]]))
    torch.testing.assert_close(got, torch.tensor(several))


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("kind", ["lookahead", "avp-cnn"])
def test_gain_by_location(kind: str, multilabel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against plain sums: the loss after one glimpse at each cell, and that of the labels' frequencies."""
    monkeypatch.setattr(nogs.runs.device, "design_dtype", lambda device: torch.float32)
    posterior, images = make(kind, multilabel=multilabel), noise(8)
    if multilabel:
        labels = torch.tensor([[1, 0, 1]] * 5 + [[0, 0, 0]] * 2 + [[0, 1, 1]])
        rates = [5 / 8, 1 / 8, 6 / 8]
        before = -sum(p * math.log(p) + (1 - p) * math.log(1 - p) for p in rates) / 3
    else:
        labels = torch.tensor([0, 0, 0, 0, 2, 2, 2, 2])  # a class is missing
        before = math.log(2)
    with torch.inference_mode():
        got = gain_by_location(posterior, images, labels)
        for cell in range(L):
            losses = []
            for image, label in zip(images, labels.tolist(), strict=True):
                probs = posterior(observe(image[None], [cell])).probs[0].tolist()
                if multilabel:
                    hits = [p if y else 1 - p for p, y in zip(probs, label, strict=True)]
                    losses.append(-sum(math.log(p) for p in hits) / CLASSES)
                else:
                    losses.append(-math.log(probs[label]))
            assert got[cell].item() == pytest.approx(before - sum(losses) / 8, abs=1e-5)


def test_the_focus_mixes_all_locations_and_those_of_positive_gain() -> None:
    # Gains -1, 1, 0, 3: a quarter everywhere, and 0, 1/4, 0, 3/4 in proportion to what helps.
    gain = torch.tensor([-1.0, 1.0, 0.0, 3.0])
    torch.testing.assert_close(focus_on(gain, 0.5), torch.tensor([0.125, 0.25, 0.125, 0.5]))
    torch.testing.assert_close(focus_on(gain, 1.0), torch.tensor([0.0, 0.25, 0.0, 0.75]))
    torch.testing.assert_close(focus_on(gain, 0.0), torch.full((4,), 0.25))
    for hopeless in (torch.tensor([-1.0, -2.0, 0.0, -0.1]), torch.full((4,), torch.nan)):
        torch.testing.assert_close(focus_on(hopeless, 0.5), torch.full((4,), 0.25))


def test_training_cells_are_drawn_from_the_focus() -> None:
    """Chi-square goodness of fit for each of T = 2, p < 1e-6 fails: a false-alarm rate of 2e-6."""
    n = 100_000
    focus = torch.zeros(L)
    focus[[2, 5, 11, 15]] = torch.tensor([0.6, 0.3, 0.09, 0.01])
    cells = draw_cells(focus, images=n, glimpses=2, generator=Generator().manual_seed(0))
    for drawn in cells.unbind(1):
        counts = drawn.bincount(minlength=L).double()
        assert counts[focus == 0].sum() == 0
        expected = n * focus[focus > 0].double()
        statistic = ((counts[focus > 0] - expected).square() / expected).sum()
        assert torch.special.gammaincc(torch.tensor(1.5, dtype=torch.float64), statistic / 2) > 1e-6
