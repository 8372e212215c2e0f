"""The attentional variational posterior g(θ | y_1:t, l_1:t): a label's distribution given any set of glimpses.

*Near-Optimal Glimpse Sequences*, section 4.2. A posterior is called with glimpses and gives a
`torch.distributions` object: `Categorical` for one label of C classes, `Bernoulli` for K labels at once.
For design it also looks ahead: what would it say if one more glimpse were taken, at each location of the
grid in turn, of an image that completes what was seen?

- `AVPCNN`, the paper's: a CNN on the masked image. One pass per location and completion.
- `LookaheadPosterior`, ours and the default: a GRU over location-conditioned glimpse embeddings, one step of
  which per candidate gives a whole map in one batched pass (after Rangrej & Clark 2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical
from torch.nn import functional as F

from nogs.device import design_dtype
from nogs.embedding import GlimpseEmbedding, perceptron
from nogs.glimpses import Glimpses, Grid, look, masked_image

CANDIDATES = 2048
"""Glimpses looked ahead to in one pass of the lookahead posterior: their GRU gates still fit in a cache."""
AVP_CANDIDATES = 256
"""And of the AVP-CNN, which makes a whole image of each."""


@runtime_checkable
class Posterior(Protocol):
    """What design asks of a posterior."""

    grid: Grid
    multilabel: bool
    focus: Float[Tensor, " L"]
    """How often training looked at each location; sums to 1."""

    def __call__(self, glimpses: Glimpses) -> Categorical | Bernoulli:
        """g(θ | y_1:T, l_1:T), batch shape [B] (or [B, K] for K labels)."""
        ...

    def logits_by_glimpse(self, glimpses: Glimpses) -> Float[Tensor, "B T C"]:
        """Logits of g(θ | y_1:t, l_1:t) for every t = 1..T."""
        ...

    def lookahead(
        self,
        seen: Glimpses,
        completions: UInt8[Tensor, "P c H H"],
        owners: Int[Tensor, " P"],
        *,
        rows: Int[Tensor, " Q"],
        cells: Int[Tensor, " Q"],
    ) -> Float[Tensor, "Q C"]:
        """Logits after one more glimpse, for each of Q candidates: at ``cells[q]`` of completion ``rows[q]``.

        ``owners[p]`` is the row of ``seen`` (of T ≥ 0 glimpses) that completion p belongs to.
        """
        ...


def lookahead_everywhere(
    posterior: Posterior, seen: Glimpses, completions: UInt8[Tensor, "P c H H"], owners: Int[Tensor, " P"]
) -> Float[Tensor, "P L C"]:
    """Logits after one more glimpse at each of the grid's L locations of each completion."""
    P, L = len(completions), len(posterior.grid)
    every = torch.arange(P * L, device=completions.device)
    return posterior.lookahead(seen, completions, owners, rows=every // L, cells=every % L).unflatten(0, (P, L))


def class_log_probs(
    logits: Float[Tensor, "*batch K"], *, multilabel: bool, label: int | None = None
) -> Float[Tensor, "*batch C"]:
    """log g(θ) of one label: of its C classes, or of (0, 1) for label number ``label`` of a multi-label set."""
    if not multilabel:
        return logits.log_softmax(-1)
    if label is None:
        raise ValueError("a multi-label posterior needs the number of the label")
    return F.logsigmoid(torch.stack((-logits[..., label], logits[..., label]), dim=-1))


def distribution(logits: Float[Tensor, "*batch C"], *, multilabel: bool) -> Categorical | Bernoulli:
    """The logits as what they mean."""
    return Bernoulli(logits=logits) if multilabel else Categorical(logits=logits)


class LookaheadPosterior(nn.Module):
    """A GRU over glimpse embeddings and one classifier; h_0 is learned, so that it speaks before any glimpse."""

    def __init__(self, grid: Grid, *, channels: int, classes: int, multilabel: bool, hidden: int = 128) -> None:
        super().__init__()
        self.grid = grid
        self.multilabel = multilabel
        self.focus: Tensor
        self.register_buffer("focus", torch.full((len(grid),), 1 / len(grid)))
        what = perceptron(grid, channels * grid.scales, width=64)
        self.embedding = GlimpseEmbedding(grid, what, width=64)
        self.core = nn.GRUCell(64, hidden)
        self.start = nn.Parameter(torch.zeros(hidden))
        self.classifier = nn.Sequential(nn.Linear(hidden, 64), nn.ReLU(), nn.Linear(64, classes))

    def forward(self, glimpses: Glimpses) -> Categorical | Bernoulli:
        return distribution(self.classifier(self.states(glimpses)[:, -1]), multilabel=self.multilabel)

    def logits_by_glimpse(self, glimpses: Glimpses) -> Float[Tensor, "B T C"]:
        return self.classifier(self.states(glimpses)[:, 1:])

    def lookahead(
        self,
        seen: Glimpses,
        completions: UInt8[Tensor, "P c H H"],
        owners: Int[Tensor, " P"],
        *,
        rows: Int[Tensor, " Q"],
        cells: Int[Tensor, " Q"],
    ) -> Float[Tensor, "Q C"]:
        h = self.states(seen)[:, -1]
        recalled = F.linear(h, self.core.weight_hh, self.core.bias_hh)
        passes = []
        with _fast(completions.device) as dtype:
            h, recalled = h.to(dtype), recalled.to(dtype)
            for some, at in zip(rows.split(CANDIDATES), cells.split(CANDIDATES), strict=True):
                patches = look(completions, self.grid, at[:, None], some).patches[:, 0]
                arriving = F.linear(self.embedding(patches, at), self.core.weight_ih, self.core.bias_ih)
                mine = owners[some]
                passes.append(self.classifier(_gru(arriving, recalled[mine], h[mine])))
        return torch.cat(passes).float()

    def states(self, glimpses: Glimpses) -> Float[Tensor, "B states h"]:
        """h_0, and h_t after each of T glimpses: states = T + 1."""
        B, T = glimpses.cells.shape
        states = [self.start.expand(B, -1)]
        if T:
            for embedded in self.embedding(glimpses.patches, glimpses.cells).unbind(1):
                states.append(self.core(embedded, states[-1]))
        return torch.stack(states, dim=1)


@contextmanager
def _fast(device: torch.device) -> Iterator[torch.dtype]:
    """Looking ahead in the precision that pays on this device."""
    dtype = design_dtype(device)
    with nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype):
        yield dtype


def _gru(
    arriving: Float[Tensor, "Q gates"], recalled: Float[Tensor, "Q gates"], h: Float[Tensor, "Q h"]
) -> Float[Tensor, "Q h"]:
    """One step of `nn.GRUCell` whose recurrent product is shared by all candidates of an image."""
    reset_in, update_in, new_in = arriving.chunk(3, dim=-1)
    reset_h, update_h, new_h = recalled.chunk(3, dim=-1)
    reset, update = (reset_in + reset_h).sigmoid(), (update_in + update_h).sigmoid()
    return torch.lerp((new_in + reset * new_h).tanh(), h, update)


class AVPCNN(nn.Module):
    """Any timm classifier on the masked image, its mask a channel; blind to the order of glimpses."""

    def __init__(
        self,
        grid: Grid,
        *,
        channels: int,
        classes: int,
        multilabel: bool,
        backbone: str = "small-resnet",
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.channels = channels
        self.multilabel = multilabel
        self.focus: Tensor
        self.register_buffer("focus", torch.full((len(grid),), 1 / len(grid)))
        network = _backbone(backbone, channels + 1, classes, pretrained=pretrained)
        self.backbone = network.to(memory_format=torch.channels_last)  # a quarter to a half faster, also on a CPU

    def forward(self, glimpses: Glimpses) -> Categorical | Bernoulli:
        return distribution(self._logits(glimpses), multilabel=self.multilabel)

    def logits_by_glimpse(self, glimpses: Glimpses) -> Float[Tensor, "B T C"]:
        patches, cells = glimpses
        return torch.stack(
            [self._logits(Glimpses(patches[:, : t + 1], cells[:, : t + 1])) for t in range(cells.shape[1])], dim=1
        )

    def lookahead(
        self,
        seen: Glimpses,
        completions: UInt8[Tensor, "P c H H"],
        owners: Int[Tensor, " P"],
        *,
        rows: Int[Tensor, " Q"],
        cells: Int[Tensor, " Q"],
    ) -> Float[Tensor, "Q C"]:
        passes = []
        with _fast(completions.device):
            for some, at in zip(rows.split(AVP_CANDIDATES), cells.split(AVP_CANDIDATES), strict=True):
                new = look(completions, self.grid, at[:, None], some)
                mine = owners[some]
                pairs = zip((seen.patches[mine], seen.cells[mine]), new, strict=True)
                passes.append(self._logits(Glimpses(*(torch.cat(pair, dim=1) for pair in pairs))))
        return torch.cat(passes).float()

    def _logits(self, glimpses: Glimpses) -> Float[Tensor, "B C"]:
        if glimpses.cells.shape[1]:
            return self.backbone(masked_image(glimpses, self.grid))
        H = self.grid.image_px
        unseen = torch.zeros(len(glimpses.cells), self.channels + 1, H, H, device=glimpses.cells.device)
        return self.backbone(unseen)


def _backbone(name: str, channels: int, classes: int, *, pretrained: bool) -> nn.Module:
    import timm  # seconds to import, and the lookahead posterior needs none of it

    if name == "small-resnet":
        return small_resnet(channels, classes)
    return timm.create_model(name, pretrained=pretrained, in_chans=channels, num_classes=classes)


def small_resnet(channels: int, classes: int) -> nn.Module:
    """A residual network of 0.7 M parameters for images of 32 to 128 pixels: timm's ResNet, a block a stage."""
    import timm

    return timm.models.resnet.ResNet(
        timm.models.resnet.BasicBlock,  # type: ignore[arg-type] # timm's annotation is of an instance
        layers=(1, 1, 1, 1),
        channels=(32, 64, 96, 128),
        in_chans=channels,
        num_classes=classes,
        stem_width=32,
    )
