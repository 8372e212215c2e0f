"""Posteriors: looking ahead equals looking, one glimpse at a time; and the contract of every network."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.distributions import Bernoulli, Categorical

import nogs.posterior.lookahead
import nogs.posterior.masked_cnn
import nogs.runs.device
from nogs.glimpses.fovea import Glimpses
from nogs.glimpses.grid import Grid
from nogs.posterior.focus import nll
from nogs.posterior.lookahead import _gru_step
from nogs.posterior.protocol import Candidates, LabelDistribution, OneLabel, distribution, every_candidate
from posteriors import CLASSES, IMAGE_PX, SIZE, L, Posteriors, join, make, noise, observe

SEEN: dict[int, list[list[int]]] = {
    0: [[], [], []],
    1: [[5], [0], [15]],
    3: [[5, 0, 9], [1, 2, 3], [15, 7, 4]],
}


@pytest.mark.parametrize("candidates", [7, 2048], ids=["in passes", "in one pass"])
@pytest.mark.parametrize("T", SEEN)
@pytest.mark.parametrize(
    ("kind", "channels", "scales", "multilabel"),
    [
        ("lookahead", 1, 1, False),
        ("lookahead", 3, 2, True),
        ("avp-cnn", 1, 1, False),
        ("avp-cnn", 3, 2, True),
    ],
)
def test_looking_ahead_equals_looking(
    kind: str,
    channels: int,
    scales: int,
    multilabel: bool,
    T: int,
    candidates: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five completions of three images: the posterior itself after one more glimpse at each cell."""
    monkeypatch.setattr(nogs.posterior.lookahead, "CANDIDATES", candidates)
    monkeypatch.setattr(nogs.posterior.masked_cnn, "CANDIDATES", candidates)
    monkeypatch.setattr(nogs.runs.device, "design_dtype", lambda device: torch.float32)
    posterior = make(kind, channels=channels, scales=scales, multilabel=multilabel)
    owners, completions = torch.tensor([0, 0, 1, 2, 2]), noise(5, channels, seed=1)
    each = [observe(noise(3, channels)[[row]], cells, scales=scales) for row, cells in enumerate(SEEN[T])]
    seen = Glimpses(*(torch.cat(column) for column in zip(*each, strict=True)))
    with torch.inference_mode():
        got = lookahead_everywhere(posterior, seen, completions, owners)
        assert got.shape == (5, L, CLASSES)
        for p, owner in enumerate(owners.tolist()):
            for cell in range(L):
                one = observe(completions[[p]], [cell], scales=scales)
                expected = posterior(join(each[owner], one)).logits[0]
                torch.testing.assert_close(got[p, cell], expected, rtol=1e-4, atol=1e-5)
    assert got.std(0).min() > 1e-5  # the answer depends on the completion
    assert got.std(1).min() > 1e-5  # and on the location


def test_candidates_are_looked_ahead_to_in_any_order() -> None:
    """Some of the grid, some of the completions, some of them twice: each what it is among all."""
    for kind in ("lookahead", "avp-cnn"):
        posterior = make(kind)
        owners, completions, seen = torch.tensor([0, 0, 1]), noise(3, seed=1), observe(noise(2), [5, 9])
        rows, cells = torch.tensor([2, 0, 0, 1, 2]), torch.tensor([15, 3, 3, 0, 7])
        with torch.inference_mode():
            everywhere = lookahead_everywhere(posterior, seen, completions, owners)
            some = posterior.lookahead(seen, Candidates(completions, owners, rows, cells)).logits
        torch.testing.assert_close(some, everywhere[rows, cells], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["lookahead", "avp-cnn"])
def test_half_precision_is_close_to_full_precision(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 has 8 significant bits; after all layers the error is a few hundredths of the logits' spread."""
    posterior, owners = make(kind, channels=3), torch.arange(64) // 32
    completions, seen = noise(64, 3, seed=1), observe(noise(2, 3), [5, 9])
    answers = {}
    for dtype in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(nogs.runs.device, "design_dtype", lambda device, dtype=dtype: dtype)
        with torch.inference_mode():
            answers[dtype] = lookahead_everywhere(posterior, seen, completions, owners)
    exact, half = answers.values()
    assert exact.dtype == half.dtype == torch.float32
    assert 0 < (half - exact).abs().max() < 0.1 * exact.std()


def lookahead_everywhere(posterior: Posteriors, seen: Glimpses, completions: Tensor, owners: Tensor) -> Tensor:
    """The logits of one more glimpse at each of L locations of each of P completions: [P, L, C]."""
    candidates = every_candidate(completions, owners, locations=L)
    return posterior.lookahead(seen, candidates).logits.unflatten(0, (len(completions), L))


@pytest.mark.parametrize("kind", ["lookahead", "avp-cnn"])
def test_each_step_is_the_posterior_of_the_glimpses_so_far(kind: str) -> None:
    posterior, images = make(kind), noise(4)
    each = [observe(images[[row]], cells) for row, cells in enumerate(([3, 12, 6], [0, 3, 15], [9, 9, 1], [7, 2, 5]))]
    seen = Glimpses(*(torch.cat(column) for column in zip(*each, strict=True)))
    with torch.inference_mode():
        by_glimpse = posterior.by_glimpse(seen).logits
        for t in range(3):
            expected = posterior(Glimpses(seen.patches[:, : t + 1], seen.cells[:, : t + 1])).logits
            torch.testing.assert_close(by_glimpse[:, t], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["lookahead", "avp-cnn"])
def test_before_any_glimpse_all_images_have_one_distribution(kind: str) -> None:
    with torch.inference_mode():
        answer = make(kind)(observe(noise(3), []))
    assert answer.batch_shape == (3,)
    assert torch.equal(answer.probs, answer.probs[:1].expand(3, -1))


def test_one_step_is_the_gru_cells() -> None:
    torch.manual_seed(0)
    cell = nn.GRUCell(5, 7).double()
    arriving, h = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 7, dtype=torch.float64)
    got = _gru_step(
        nn.functional.linear(arriving, cell.weight_ih, cell.bias_ih),
        nn.functional.linear(h, cell.weight_hh, cell.bias_hh),
        h,
    )
    torch.testing.assert_close(got, cell(arriving, h), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["lookahead", "avp-cnn"])
def test_it_gives_the_distribution_that_the_labels_have(kind: str) -> None:
    seen = observe(noise(4), [1, 2])
    with torch.inference_mode():
        one, many = make(kind)(seen), make(kind, multilabel=True)(seen)
    assert isinstance(one, Categorical)
    assert one.batch_shape == (4,)
    torch.testing.assert_close(one.probs.sum(-1), torch.ones(4))
    assert isinstance(many, Bernoulli)
    assert many.batch_shape == (4, CLASSES)


class Fixed:
    """A multi-label posterior with the same logits for everything."""

    grid, device = Grid(image_px=IMAGE_PX, glimpse_px=SIZE, stride_px=3), torch.device("cpu")

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def __call__(self, *glimpses: object) -> Bernoulli:
        return Bernoulli(logits=self.logits)

    by_glimpse = lookahead = __call__


def test_one_label_of_many_has_the_log_probabilities_of_its_two_classes() -> None:
    logits = torch.tensor([[0.5, -2.0, 3.0]], dtype=torch.float64)
    total = sum(math.exp(v) for v in (0.5, -2.0, 3.0))
    expected = torch.tensor([[v - math.log(total) for v in (0.5, -2.0, 3.0)]], dtype=torch.float64)
    torch.testing.assert_close(distribution(logits, multilabel=False).logits, expected)
    for label, logit in enumerate((0.5, -2.0, 3.0)):
        p = 1 / (1 + math.exp(-logit))
        expected = torch.tensor([[1 - p, p]], dtype=torch.float64).log()
        narrowed, seen = OneLabel(Fixed(logits), label), observe(noise(1), [3])
        zero = torch.tensor([0])
        ahead = narrowed.lookahead(seen, Candidates(noise(1), zero, rows=zero, cells=zero))
        for predicted in (narrowed(seen), narrowed.by_glimpse(seen), ahead):
            torch.testing.assert_close(predicted.logits, expected)
    certain = OneLabel(Fixed(torch.tensor([[900.0], [-900.0]])), 0)(observe(noise(2), [3])).logits
    assert torch.equal(certain, torch.tensor([[-900.0, 0.0], [0.0, -900.0]]))


def test_a_label_distribution_leaves_its_log_probabilities_as_they_are() -> None:
    log_probs = torch.randn(1000, 7, generator=Generator().manual_seed(0)).log_softmax(-1)
    labels = torch.arange(1000) % 7
    assert torch.equal(LabelDistribution(log_probs).logits, log_probs)
    assert torch.equal(LabelDistribution(log_probs).log_prob(labels), log_probs.gather(1, labels[:, None])[:, 0])


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("kind", ["lookahead", "avp-cnn"])
def test_the_contract_of_a_network(kind: str, multilabel: bool) -> None:
    posterior, seen = make(kind, multilabel=multilabel), observe(noise(6), [4, 9, 2])
    with torch.inference_mode():
        answer = posterior(seen).logits
        assert torch.equal(posterior(seen).logits, answer)
        for row in range(6):
            alone = posterior(Glimpses(seen.patches[row : row + 1], seen.cells[row : row + 1])).logits[0]
            torch.testing.assert_close(alone, answer[row], rtol=1e-4, atol=1e-5)
        other = make(kind, multilabel=multilabel, seed=1)
        assert not torch.allclose(other(seen).logits, answer)
        other.load_state_dict(posterior.state_dict())
        assert torch.equal(other(seen).logits, answer)
    labels = torch.randint(2, (6, CLASSES)) if multilabel else torch.arange(6) % CLASSES
    posterior.train()
    nll(posterior.by_glimpse(seen), labels[:, None]).mean().backward()
    for name, parameter in posterior.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
