"""Stage fit-posterior: train g(θ | y_1:t, l_1:t) on any number of glimpses at random locations.

The loss is the mean over t = 1..T of the cross-entropy after t random glimpses (for the AVP-CNN one t drawn
per step), so that one network serves every t. The images that are to get sequences stay out.

Where we differ from the paper: locations are not drawn evenly, for where glimpses are small nearly all of
them say nothing, and the few that matter are learned slowly. Most are drawn in proportion to how much one
glimpse there lowers the loss on validation images, measured anew at every validation; before there is
anything to measure, in proportion to what a linear discriminant finds there (`nogs.posterior.head_start`). Locations
are still drawn without regard to the image, so what is learned is still p(θ | glimpses).
"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor
from torch.nn import functional as F

from nogs.config.stages import FitPosterior
from nogs.data import fingerprint, load
from nogs.glimpses.fovea import look, nothing_seen
from nogs.information import entropy
from nogs.posterior.head_start import linear_gain
from nogs.posterior.lookahead import LookaheadPosterior
from nogs.posterior.protocol import Posterior, lookahead_everywhere
from nogs.runs.device import chance, choose_device
from nogs.runs.directory import RunDirectory, finished_run, open_run
from nogs.runs.progress import Tick, ticking
from nogs.training.loop import fit
from nogs.weights import build_posterior, grid_of, save_posterior

VALIDATION_BATCH = 256
FOCUS_IMAGES = 256
LINEAR_IMAGES = 2000


def fit_posterior(config: FitPosterior, tick: Tick | None = None) -> RunDirectory:
    """Fit the posterior of ``config`` and write model.safetensors to its run directory."""
    if finished := finished_run(config.machine.out, "fit-posterior", config, resume=config.machine.resume):
        return finished
    device = choose_device(config.machine.device)
    data = load(config.source)
    grid = grid_of(config.geometry, data)
    run = open_run(config.machine.out, "fit-posterior", config, resume=config.machine.resume)
    T = config.geometry.glimpses
    torch.manual_seed(config.optimisation.seed)
    posterior = build_posterior(
        config.network,
        grid,
        channels=data.images.shape[1],
        classes=len(data.classes),
        multilabel=data.multilabel,
    ).to(device)
    train = data.members("train")
    train = train[~torch.isin(train, data.annotated(config.annotate, config.source.split_seed))]
    train, val = train.to(device), data.members("val").to(device)
    pixels, labels = data.images.to(device), data.labels.to(device)
    cells_of = partial(_cells, T=T, posterior=posterior)
    yardstick = torch.randint(len(grid), (len(val), T), generator=chance(config.optimisation.seed, 3)).to(device)

    def logits(images: Int[Tensor, " b"], cells: Int[Tensor, "b T"]) -> Float[Tensor, "b t C"]:
        return posterior.logits_by_glimpse(look(pixels, grid, cells, images))

    def loss(batch: Int[Tensor, " b"], generator: Generator) -> Tensor:
        images = train[batch]
        cells = cells_of(len(images), generator=generator)
        if isinstance(posterior, LookaheadPosterior):
            said = logits(images, cells)
        else:
            t = int(torch.randint(1, T + 1, (), generator=generator, device=device))
            said = posterior(look(pixels, grid, cells[:, :t], images)).logits[:, None]
        return nll(said, labels[images]).mean()

    def mean_nll(cells: Int[Tensor, "n T"]) -> Float[Tensor, " T"]:
        batches = zip(val.split(VALIDATION_BATCH), cells.split(VALIDATION_BATCH), strict=True)
        return torch.cat([nll(logits(images, at), labels[images]) for images, at in batches]).mean(0)

    def begin() -> None:
        some = train[:LINEAR_IMAGES]
        posterior.focus.copy_(_proposal(linear_gain(pixels, some, labels[some], grid), config.focus))

    def validate() -> dict[str, float]:
        anywhere = mean_nll(yardstick)
        chosen = mean_nll(cells_of(len(val), generator=chance(config.optimisation.seed, 3, device=device)))
        if config.focus and isinstance(posterior, LookaheadPosterior):
            some = val[:FOCUS_IMAGES]
            gain = _gain_by_location(posterior, pixels[some], labels[some])
            posterior.focus.copy_(_proposal(gain, config.focus))
        return {
            "nll_nats": ((anywhere + chosen) / 2).mean().item(),
            "nll_nats_random": anywhere.mean().item(),
            "nll_nats_focused": chosen.mean().item(),
        }

    with ticking("posterior", config.optimisation.iterations, tick) as report:
        fit(
            posterior,
            run,
            loss=loss,
            validate=validate,
            examples=len(train),
            optimisation=config.optimisation,
            device=device,
            tick=report,
            begin=begin if config.focus else None,
        )
    save_posterior(run, posterior, config.network, data)
    run.finish(device=str(device), inputs={config.source.data: fingerprint(data)})
    return run


def nll(logits: Float[Tensor, "b t C"], labels: Int[Tensor, " b"] | Int[Tensor, "b C"]) -> Float[Tensor, "b t"]:
    """Negative log-likelihood in nats of one label, or the mean over several labels' (multi-label)."""
    if labels.ndim == 2:
        wanted = labels[:, None].expand_as(logits).float()
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(-1)
    return -logits.log_softmax(-1).gather(-1, labels[:, None, None].expand(-1, logits.shape[1], 1))[..., 0]


def _cells(count: int, *, T: int, posterior: Posterior, generator: Generator) -> Int[Tensor, "n T"]:
    """Locations to look at: drawn from the posterior's focus, independent of image and label."""
    return posterior.focus.multinomial(count * T, replacement=True, generator=generator).unflatten(0, (count, T))


def _gain_by_location(
    posterior: Posterior, images: UInt8[Tensor, "b c H H"], labels: Int[Tensor, " b"] | Int[Tensor, "b C"]
) -> Float[Tensor, " L"]:
    """How many nats one glimpse at each location takes off the loss of these images, against the labels' rates."""
    owners = torch.arange(len(images), device=images.device)
    after = nll(lookahead_everywhere(posterior, nothing_seen(images, posterior.grid), images, owners), labels).mean(0)
    if labels.ndim == 2:
        rate = labels.float().mean(0).clamp(1e-3, 1 - 1e-3)
        before = -(rate * rate.log() + (1 - rate) * (1 - rate).log()).mean()
    else:
        before = entropy((labels.bincount(minlength=1).float() / len(labels)).log())
    return before - after


def _proposal(gain: Float[Tensor, " L"], focus: float) -> Float[Tensor, " L"]:
    """A mixture of anywhere and of where a glimpse helps, in proportion to how much; anywhere if none helps."""
    helps = gain.clamp_min(0)
    anywhere = torch.full_like(gain, 1 / len(gain))
    if not helps.sum() > 0:
        return anywhere
    return (1 - focus) * anywhere + focus * helps / helps.sum()
