"""Thresholds on what a network computes anyway, and records of its steps, against `classify`, which stops by itself."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor

from nogs.attention.choosers import greedy
from nogs.attention.classify import classify, look_at_all
from nogs.attention.gain import greatest_gains, stop_by_gain_map
from nogs.attention.network import HardAttention
from nogs.evaluation.cost import macs_by_glimpse, parts_of_glimpse
from nogs.evaluation.steps import maps_behind
from nogs.evaluation.thresholds import (
    CONFIDENCES,
    Thresholded,
    ThresholdPoint,
    by_threshold,
    mean_curves,
    thresholds_nats,
)
from nogs.glimpses.grid import Grid
from nogs.information import entropy
from nogs.stopping.curves import macs_by_rule

T, C, N = 3, 4, 600  # more images than one batch of `look_at_all`
GRID = Grid(image_px=12, glimpse_px=4, stride_px=4)


@pytest.fixture(scope="module", params=[0, 6])
def network(request: pytest.FixtureRequest) -> HardAttention:
    torch.manual_seed(3)
    network = HardAttention(GRID, channels=1, classes=C, hidden=16, overview_px=request.param)
    with torch.no_grad():
        network.classifier.weight.mul_(20)  # answers of all confidences
    return network.eval()


def images() -> Tensor:
    return torch.randint(256, (N, 1, 12, 12), generator=Generator().manual_seed(1), dtype=torch.uint8)


@torch.no_grad()
def test_images_stop_where_a_network_stops_them(network: HardAttention) -> None:
    pixels, labels = images(), torch.arange(N) % C
    seen = look_at_all(network, pixels, torch.arange(N), glimpses=T, choose=greedy)
    log_probs = seen.class_logits.log_softmax(-1)
    macs = macs_by_glimpse(network, channels=1, glimpses=T)
    parts = parts_of_glimpse(network, channels=1)
    rules = macs_by_rule(macs, answer_macs=parts["classifier"], head_macs=0, locator_macs=parts["locator"])
    gains = greatest_gains(seen.peak_logits, seen.class_logits)
    kept = by_threshold(log_probs, labels, map_gain=gains, macs=rules)
    assert kept.stops.keys() == kept.curves.keys() == {"fixed", "confidence", "map"}
    stopped = set()
    for number, threshold in enumerate(kept.stops["map"].settings):
        answers = classify(network, pixels, glimpses=T, choose=greedy, stop=stop_by_gain_map(threshold))
        assert answers.steps.equal(kept.stops["map"].steps[number])
        point = kept.curves["map"][number]
        right = answers.class_logits.argmax(-1) == labels
        assert point.accuracy == pytest.approx(right.double().mean().item())
        by_class = [right[labels == c].double().mean().item() for c in range(C)]
        assert point.balanced_accuracy == pytest.approx(sum(by_class) / C)
        assert point.mean_glimpses == pytest.approx(answers.steps.double().mean().item())
        # An answer after each glimpse, and a map before each and, unless it was the last, after it.
        spent = [macs[t - 1] + (t - 1) * parts["classifier"] + parts["locator"] * (t < T) for t in answers.steps]
        assert point.macs == pytest.approx(sum(spent) / N)
        stopped |= {*answers.steps.tolist()}
    assert stopped >= {1, 3}
    for number, threshold in enumerate(kept.stops["confidence"].settings):
        probs = log_probs.exp().amax(-1).tolist()
        expected = [next((t for t in (1, 2) if of[t - 1] > threshold), T) for of in probs]
        assert kept.stops["confidence"].steps[number].tolist() == expected
    assert [point.mean_glimpses for point in kept.curves["fixed"]] == [1, 2, 3]
    assert [point.macs for point in kept.curves["fixed"]] == macs


def test_the_first_threshold_stops_every_image_and_the_last_none() -> None:
    assert (CONFIDENCES[0], CONFIDENCES[-1]) == (0, 1)
    assert [*CONFIDENCES] == sorted(CONFIDENCES)
    for classes in (2, 4, 10, 1000):
        gains = thresholds_nats(classes)
        assert gains[0] >= math.log(classes)
        assert gains[-1] == 0
        assert [*gains] == sorted(set(gains), reverse=True)


def test_means_over_seeds_by_hand() -> None:
    seeds = [
        Thresholded({}, {"fixed": (ThresholdPoint(1, 1, 0.5, 0.4, 10),)}),
        Thresholded({}, {"fixed": (ThresholdPoint(1, 1, 0.75, 0.5, 10),)}),
    ]
    assert mean_curves(seeds) == {"fixed": (pytest.approx((1, 1, 0.625, 0.45, 10)),)}


@torch.no_grad()
def test_each_glimpse_was_chosen_where_its_map_is_greatest(network: HardAttention) -> None:
    pixels, few = images(), torch.tensor([5, 0, 17])
    rollout = network(pixels, few, glimpses=T, choose=greedy)
    probabilities = maps_behind(network, pixels, few, rollout.cells, gains=False)
    gains = maps_behind(network, pixels, few, rollout.cells, gains=True)
    assert probabilities.argmax(-1).equal(rollout.cells)
    assert gains.argmax(-1).equal(rollout.cells)
    assert probabilities.sum(-1).allclose(torch.ones(3, T))
    taken = probabilities.gather(2, rollout.cells[..., None])[..., 0]
    assert taken.log().allclose(rollout.log_policy, atol=1e-5)
    left = entropy(rollout.class_logits.log_softmax(-1))
    assert (gains[:, 1:].amax(-1) <= left[:, :-1]).all()
