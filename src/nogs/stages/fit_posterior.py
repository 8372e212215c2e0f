"""Stage fit-posterior: train g(θ | y_1:t, l_1:t) on glimpses at random locations, for every t = 1..T.

The loss is the mean cross-entropy over t = 1..T (for the masked CNN, of one t drawn per step), so that one network
serves every t. The images that are to get sequences are left out.

Where we differ from *Near-Optimal Glimpse Sequences*: locations are not drawn uniformly. Where glimpses are small,
nearly all of them carry nothing about the label, and the few that do are learned slowly. A share ``focus`` of the
locations is drawn in proportion to how much one glimpse there lowers the loss on validation images, measured at every
validation; before the first one, in proportion to what a linear discriminant explains there
(`nogs.posterior.head_start`). Locations are drawn without regard to the image, so the target is still
p(θ | glimpses).
"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor
from torch.distributions import Bernoulli, Categorical

from nogs.config.stages import FitPosterior
from nogs.data import fingerprint, load
from nogs.glimpses.fovea import look, nothing_seen
from nogs.information import entropy
from nogs.posterior.head_start import linear_gain
from nogs.posterior.protocol import TrainablePosterior, every_candidate
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
    draw_cells = partial(_draw_cells, T=T, posterior=posterior)
    random_cells = torch.randint(len(grid), (len(val), T), generator=chance(config.optimisation.seed, 3)).to(device)

    def loss(batch: Int[Tensor, " b"], generator: Generator) -> Tensor:
        images = train[batch]
        cells = draw_cells(len(images), generator=generator)
        predicted = posterior.for_training(look(pixels, grid, cells, images), generator=generator)
        return nll(predicted, labels[images][:, None]).mean()

    def mean_nll(cells: Int[Tensor, "n T"]) -> Float[Tensor, " T"]:
        batches = zip(val.split(VALIDATION_BATCH), cells.split(VALIDATION_BATCH), strict=True)
        return torch.cat(
            [
                nll(posterior.by_glimpse(look(pixels, grid, batch_cells, images)), labels[images][:, None])
                for images, batch_cells in batches
            ]
        ).mean(0)

    def begin() -> None:
        images = train[:LINEAR_IMAGES]
        posterior.focus.copy_(_proposal(linear_gain(pixels, images, labels[images], grid), config.focus))

    def validate() -> dict[str, float]:
        random = mean_nll(random_cells)
        focused = mean_nll(draw_cells(len(val), generator=chance(config.optimisation.seed, 3, device=device)))
        if config.focus and posterior.maps_are_cheap:
            images = val[:FOCUS_IMAGES]
            gain = _gain_by_location(posterior, pixels[images], labels[images])
            posterior.focus.copy_(_proposal(gain, config.focus))
        return {
            "nll_nats": ((random + focused) / 2).mean().item(),
            "nll_nats_random": random.mean().item(),
            "nll_nats_focused": focused.mean().item(),
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


def nll(predicted: Categorical | Bernoulli, labels: Int[Tensor, "*labels"]) -> Float[Tensor, "*batch"]:
    """Return the negative log-likelihood in nats of one label, or its mean over the K labels of a multi-label set.

    ``labels`` broadcast against the batch shape of ``predicted``: [*batch], or [*batch, K].
    """
    log_probs: Tensor = predicted.log_prob(labels.to(predicted.logits.dtype))  # type: ignore[no-untyped-call] # by torch
    return -(log_probs.mean(-1) if isinstance(predicted, Bernoulli) else log_probs)


def _draw_cells(count: int, *, T: int, posterior: TrainablePosterior, generator: Generator) -> Int[Tensor, "n T"]:
    """Return T locations for each of ``count`` images, drawn from the posterior's ``focus``."""
    return posterior.focus.multinomial(count * T, replacement=True, generator=generator).unflatten(0, (count, T))


def _gain_by_location(
    posterior: TrainablePosterior, images: UInt8[Tensor, "b c H H"], labels: Int[Tensor, " b"] | Int[Tensor, "b K"]
) -> Float[Tensor, " L"]:
    """Return by how many nats one glimpse at each location lowers the loss of these images, from the label rates'."""
    b, L = len(images), len(posterior.grid)
    candidates = every_candidate(b, L, images.device)
    owners = torch.arange(b, device=images.device)
    predicted = posterior.lookahead(nothing_seen(images, posterior.grid), images, owners, candidates)
    after = nll(predicted, labels[candidates.rows]).unflatten(0, (b, L)).mean(0)
    if labels.ndim == 2:
        rate = labels.float().mean(0).clamp(1e-3, 1 - 1e-3)
        before = -(rate * rate.log() + (1 - rate) * (1 - rate).log()).mean()
    else:
        before = entropy((labels.bincount(minlength=1).float() / len(labels)).log())
    return before - after


def _proposal(gain: Float[Tensor, " L"], focus: float) -> Float[Tensor, " L"]:
    """Return the training distribution over locations: uniform, with a share ``focus`` in proportion to the gain.

    It is uniform where no location has a positive gain.
    """
    positive = gain.clamp_min(0)
    uniform = torch.full_like(gain, 1 / len(gain))
    if not positive.sum() > 0:
        return uniform
    return (1 - focus) * uniform + focus * positive / positive.sum()
