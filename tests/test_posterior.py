"""Posteriors: looking ahead equals looking, one glimpse at a time; and what fit-posterior draws and measures."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.distributions import Bernoulli, Categorical

import nogs.posterior.lookahead
import nogs.posterior.masked_cnn
import nogs.runs.device
from nogs.glimpses.fovea import Glimpses
from nogs.glimpses.grid import Grid
from nogs.posterior.lookahead import LookaheadPosterior, _gru_step
from nogs.posterior.masked_cnn import AVPCNN
from nogs.posterior.protocol import Candidates, LabelDistribution, OneLabel, distribution, every_candidate
from nogs.stages.fit_posterior import _draw_cells, _gain_by_location, _proposal, nll

IMAGE_PX, SIZE, CLASSES = 12, 4, 3
OFFSETS = (0, 3, 6, 8)
"""Stride 3, and the last touches the border."""
L = len(OFFSETS) ** 2
Posteriors = LookaheadPosterior | AVPCNN


def make(kind: str, *, multilabel: bool = False, channels: int = 1, scales: int = 1, seed: int = 0) -> Posteriors:
    torch.manual_seed(seed)
    grid = Grid(image_px=IMAGE_PX, glimpse_px=SIZE, stride_px=3, scales=scales)
    if kind == "lookahead":
        posterior: Posteriors = LookaheadPosterior(
            grid, channels=channels, classes=CLASSES, multilabel=multilabel, hidden=16
        )
        with torch.no_grad():  # as if it had been learned
            posterior.start.normal_()
    else:
        posterior = AVPCNN(grid, channels=channels, classes=CLASSES, multilabel=multilabel)
        as_if_trained(posterior, channels)
    return posterior.eval()


def as_if_trained(posterior: AVPCNN, channels: int) -> None:
    """As if it had been trained: images behind its batch statistics, and residual blocks that say something."""
    posterior.train()
    with torch.no_grad():
        for name, parameter in posterior.named_parameters():
            if name.endswith("bn2.weight"):
                parameter.uniform_(0.5, 1.5)  # timm starts them at 0
        for seed in range(3):
            posterior(observe(noise(8, channels, seed=seed), [0, 5, 10, 15], scales=posterior.grid.scales))


def noise(count: int, channels: int = 1, *, seed: int = 0) -> Tensor:
    shape = (count, channels, IMAGE_PX, IMAGE_PX)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=Generator().manual_seed(seed))


def observe(images: Tensor, cells: list[int], *, scales: int = 1) -> Glimpses:
    """The images at the same cells, cut out by slicing; averaged and with repeated borders where coarser."""
    patches = []
    for cell in cells:
        top, left = OFFSETS[cell // 4], OFFSETS[cell % 4]
        squares = [images[:, :, top : top + SIZE, left : left + SIZE]]
        if scales == 2:
            wide = nn.functional.pad(images.float(), (2, 2, 2, 2), mode="replicate")
            wide = wide[:, :, top : top + 2 * SIZE, left : left + 2 * SIZE]
            squares.append(nn.functional.avg_pool2d(wide, 2).round().to(torch.uint8))
        patches.append(torch.cat(squares, dim=1))
    g = (len(images), 0, images.shape[1] * scales, SIZE, SIZE)
    stacked = torch.stack(patches, dim=1) if patches else torch.empty(g, dtype=torch.uint8)
    return Glimpses(stacked, torch.tensor(cells, dtype=torch.long).expand(len(images), -1))


def join(seen: Glimpses, more: Glimpses) -> Glimpses:
    return Glimpses(*(torch.cat(pair, dim=1) for pair in zip(seen, more, strict=True)))


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
    """Five completions of three images: the posterior itself, asked after one more glimpse at each cell."""
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
    assert got.std(0).min() > 1e-5  # completions matter
    assert got.std(1).min() > 1e-5  # and so do locations


def test_candidates_are_looked_ahead_to_in_any_order() -> None:
    """Some of the grid, some of the completions, some of them twice: each what it is among all."""
    for kind in ("lookahead", "avp-cnn"):
        posterior = make(kind)
        owners, completions, seen = torch.tensor([0, 0, 1]), noise(3, seed=1), observe(noise(2), [5, 9])
        rows, cells = torch.tensor([2, 0, 0, 1, 2]), torch.tensor([15, 3, 3, 0, 7])
        with torch.inference_mode():
            everywhere = lookahead_everywhere(posterior, seen, completions, owners)
            some = posterior.lookahead(seen, completions, owners, Candidates(rows, cells)).logits
        torch.testing.assert_close(some, everywhere[rows, cells], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["lookahead", "avp-cnn"])
def test_half_precision_says_nearly_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 keeps 8 bits: after all layers, some hundredths of what logits spread by."""
    posterior, owners = make(kind, channels=3), torch.arange(64) // 32
    completions, seen = noise(64, 3, seed=1), observe(noise(2, 3), [5, 9])
    told = {}
    for dtype in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(nogs.runs.device, "design_dtype", lambda device, dtype=dtype: dtype)
        with torch.inference_mode():
            told[dtype] = lookahead_everywhere(posterior, seen, completions, owners)
    exact, half = told.values()
    assert exact.dtype == half.dtype == torch.float32
    assert 0 < (half - exact).abs().max() < 0.1 * exact.std()


def lookahead_everywhere(posterior: Posteriors, seen: Glimpses, completions: Tensor, owners: Tensor) -> Tensor:
    """The logits of one more glimpse at each of L locations of each of P completions: [P, L, C]."""
    candidates = every_candidate(len(completions), L, completions.device)
    return posterior.lookahead(seen, completions, owners, candidates).logits.unflatten(0, (len(completions), L))


@pytest.mark.parametrize("kind", ["lookahead", "avp-cnn"])
def test_each_step_says_what_the_glimpses_so_far_say(kind: str) -> None:
    posterior, images = make(kind), noise(4)
    each = [observe(images[[row]], cells) for row, cells in enumerate(([3, 12, 6], [0, 3, 15], [9, 9, 1], [7, 2, 5]))]
    seen = Glimpses(*(torch.cat(column) for column in zip(*each, strict=True)))
    with torch.inference_mode():
        by_glimpse = posterior.by_glimpse(seen).logits
        for t in range(3):
            expected = posterior(Glimpses(seen.patches[:, : t + 1], seen.cells[:, : t + 1])).logits
            torch.testing.assert_close(by_glimpse[:, t], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["lookahead", "avp-cnn"])
def test_it_speaks_before_any_glimpse_and_the_same_of_all(kind: str) -> None:
    with torch.inference_mode():
        said = make(kind)(observe(noise(3), []))
    assert said.batch_shape == (3,)
    assert torch.equal(said.probs, said.probs[:1].expand(3, -1))


@pytest.mark.parametrize("cells", [[0, 15, 5], [5, 6, 9]], ids=["apart", "overlapping"])
def test_the_avp_cnn_does_not_mind_the_order(cells: list[int]) -> None:
    posterior, images = make("avp-cnn"), noise(2)
    with torch.inference_mode():
        said = [posterior(observe(images, list(order))).logits for order in permutations(cells)]
        other = posterior(observe(images, [*cells[:2], 3])).logits
    for again in said[1:]:
        torch.testing.assert_close(again, said[0], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(other, said[0])


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
        nowhere = Candidates(torch.tensor([0]), torch.tensor([0]))
        ahead = narrowed.lookahead(seen, noise(1), torch.tensor([0]), nowhere)
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
        said = posterior(seen).logits
        assert torch.equal(posterior(seen).logits, said)
        for row in range(6):
            alone = posterior(Glimpses(seen.patches[row : row + 1], seen.cells[row : row + 1])).logits[0]
            torch.testing.assert_close(alone, said[row], rtol=1e-4, atol=1e-5)
        other = make(kind, multilabel=multilabel, seed=1)
        assert not torch.allclose(other(seen).logits, said)
        other.load_state_dict(posterior.state_dict())
        assert torch.equal(other(seen).logits, said)
    labels = torch.randint(2, (6, CLASSES)) if multilabel else torch.arange(6) % CLASSES
    posterior.train()
    nll(posterior.by_glimpse(seen), labels[:, None]).mean().backward()
    for name, parameter in posterior.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", ["lookahead", "avp-cnn"])
def test_at_first_it_looks_everywhere_alike_and_remembers_its_focus(kind: str) -> None:
    posterior = make(kind)
    torch.testing.assert_close(posterior.focus, torch.full((L,), 1 / 16))
    posterior.focus.copy_(torch.arange(L) / 120)
    other = make(kind, seed=1)
    other.load_state_dict(posterior.state_dict())
    torch.testing.assert_close(other.focus, torch.arange(L) / 120)


def test_the_papers_backbone_takes_the_mask_as_a_fourth_channel() -> None:
    torch.manual_seed(0)
    grid = Grid(image_px=32, glimpse_px=8, stride_px=8)
    posterior = AVPCNN(grid, channels=3, classes=2, multilabel=False, backbone="densenet121").eval()
    first = next(layer for layer in posterior.backbone.modules() if isinstance(layer, nn.Conv2d))
    assert first.in_channels == 4
    patches = torch.randint(0, 256, (2, 1, 3, 8, 8), dtype=torch.uint8)
    with torch.inference_mode():
        said = posterior(Glimpses(patches, torch.tensor([[0], [5]])))
    assert said.probs.shape == (2, 2)
    assert torch.isfinite(said.logits).all()


def test_nll_by_hand() -> None:
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0]], [[math.log(4), 0.0], [0.0, -math.log(9)]]])
    expected = [[-math.log(3 / 4), math.log(2)], [-math.log(4 / 5), -math.log(9 / 10)]]
    one = distribution(logits, multilabel=False)
    torch.testing.assert_close(nll(one, torch.tensor([[1], [0]])), torch.tensor(expected))
    # The same numbers as two labels: p = 3/4 for a logit of log 3, and so on; the mean over both.
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
        got = _gain_by_location(posterior, images, labels)
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


def test_the_proposal_mixes_anywhere_and_where_a_glimpse_helps() -> None:
    # Gains -1, 1, 0, 3: a quarter everywhere, and 0, 1/4, 0, 3/4 in proportion to what helps.
    gain = torch.tensor([-1.0, 1.0, 0.0, 3.0])
    torch.testing.assert_close(_proposal(gain, 0.5), torch.tensor([0.125, 0.25, 0.125, 0.5]))
    torch.testing.assert_close(_proposal(gain, 1.0), torch.tensor([0.0, 0.25, 0.0, 0.75]))
    torch.testing.assert_close(_proposal(gain, 0.0), torch.full((4,), 0.25))
    for hopeless in (torch.tensor([-1.0, -2.0, 0.0, -0.1]), torch.full((4,), torch.nan)):
        torch.testing.assert_close(_proposal(hopeless, 0.5), torch.full((4,), 0.25))


def test_training_cells_are_drawn_from_the_focus() -> None:
    """Chi-square goodness of fit for each of T = 2, p < 1e-6 fails: a false-alarm rate of 2e-6."""
    posterior, n = make("lookahead"), 100_000
    focus = torch.zeros(L)
    focus[[2, 5, 11, 15]] = torch.tensor([0.6, 0.3, 0.09, 0.01])
    posterior.focus.copy_(focus)
    cells = _draw_cells(n, T=2, posterior=posterior, generator=Generator().manual_seed(0))
    for drawn in cells.unbind(1):
        counts = drawn.bincount(minlength=L).double()
        assert counts[focus == 0].sum() == 0
        expected = n * focus[focus > 0].double()
        statistic = ((counts[focus > 0] - expected).square() / expected).sum()
        assert torch.special.gammaincc(torch.tensor(1.5, dtype=torch.float64), statistic / 2) > 1e-6
