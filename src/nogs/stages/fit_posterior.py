"""Stage fit-posterior: train g(θ | y_1:t, l_1:t) on glimpses at random locations, for every t = 1..T.

The loss is the mean cross-entropy over t = 1..T (for the masked CNN, of one t drawn per step), so that one network
is used for every t (*Near-Optimal Glimpse Sequences*, section 4.2). Images that get sequences later are left out.
Locations are drawn from the posterior's focus (`nogs.posterior.focus`): measured on validation images at every
validation, and before the first one taken from a linear discriminant (`nogs.posterior.head_start`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

from nogs.config.stages import FitPosterior
from nogs.data import ImageSet, fingerprint, load
from nogs.glimpses.fovea import look
from nogs.posterior.focus import draw_cells, focus_on, gain_by_location, nll
from nogs.posterior.head_start import linear_gain
from nogs.posterior.protocol import TrainablePosterior
from nogs.runs.device import chance, choose_device
from nogs.runs.directory import RunDirectory, finished_run, open_run
from nogs.runs.extend import LONGER, extend_run
from nogs.runs.progress import Tick, ticking
from nogs.specs import PosteriorSpec, check_one_level, grid_of
from nogs.training.loop import fit
from nogs.weights import save_network

VALIDATION_BATCH = 256
"""Validation images in one pass."""
FOCUS_IMAGES = 256
"""Validation images that the gain of each location is measured on."""
LINEAR_IMAGES = 2000
"""Training images that the linear discriminants are fitted to."""


def fit_posterior(config: FitPosterior, tick: Tick | None = None) -> RunDirectory:
    """Fit the posterior of ``config`` and write model.safetensors to its run directory."""
    if config.machine.resume:
        extend_run(config.machine.out, "fit-posterior", config, outdated=LONGER)
    if finished := finished_run(config.machine.out, "fit-posterior", config, resume=config.machine.resume):
        return finished
    device = choose_device(config.machine.device)
    data = load(config.source)
    check_one_level(config.geometry)
    grid = grid_of(config.geometry, data)
    spec = PosteriorSpec(grid, data.images.shape[1], data.classes, data.multilabel, config.network)
    torch.manual_seed(config.optimisation.seed)
    posterior = spec.build(pretrained=config.network.pretrained).to(device)
    run = open_run(config.machine.out, "fit-posterior", config, resume=config.machine.resume)
    fitting = Fitting.of(config, posterior, data)
    with ticking("posterior", config.optimisation.iterations, tick) as report:
        fit(
            posterior,
            run,
            loss=fitting.loss,
            validate=fitting.validate,
            examples=len(fitting.train),
            optimisation=config.optimisation,
            device=device,
            tick=report,
            begin=fitting.begin if config.focus else None,
        )
    save_network(run, "model", posterior, spec)
    run.finish(device=str(device), inputs={config.source.data: fingerprint(data)})
    return run


@dataclass(frozen=True)
class Fitting:
    """The loss, the validation and the focus of a posterior in training, with tensors on its device.

    ``train`` and ``val``: indices of images. ``random_cells``: uniformly drawn locations for the validation images, the
    same in every validation. ``share``: share of locations drawn in proportion to the gain (`nogs.posterior.focus`).
    """

    posterior: TrainablePosterior
    pixels: UInt8[Tensor, "N c H H"]
    labels: Int[Tensor, " N"] | Int[Tensor, "N K"]
    train: Int[Tensor, " n"]
    val: Int[Tensor, " v"]
    random_cells: Int[Tensor, "v T"]
    share: float
    seed: int

    @classmethod
    def of(cls, config: FitPosterior, posterior: TrainablePosterior, data: ImageSet) -> Fitting:
        """Return the fit of ``posterior`` to ``data`` by ``config``, without the images that get sequences later."""
        device, seed, T = posterior.device, config.optimisation.seed, config.geometry.glimpses
        train, val = data.members("train"), data.members("val")
        train = train[~torch.isin(train, data.annotated(config.annotate, config.source.split_seed))]
        random_cells = torch.randint(len(posterior.grid), (len(val), T), generator=chance(seed, 3))
        return cls(
            posterior,
            pixels=data.in_memory().to(device),
            labels=data.labels.to(device),
            train=train.to(device),
            val=val.to(device),
            random_cells=random_cells.to(device),
            share=config.focus,
            seed=seed,
        )

    def loss(self, batch: Int[Tensor, " b"], generator: Generator) -> Float[Tensor, ""]:
        """Return the mean loss in nats of the training images at positions ``batch``, at locations drawn anew."""
        images = self.train[batch]
        glimpses = look(self.pixels, self.posterior.grid, self._draw(len(images), generator), images)
        predicted = self.posterior.for_training(glimpses, generator=generator)
        return nll(predicted, self.labels[images][:, None]).mean()

    def begin(self) -> None:
        """Set the first focus, from the linear gain of each location (`nogs.posterior.head_start`)."""
        images = self.train[:LINEAR_IMAGES]
        self._focus(linear_gain(self.pixels, images, self.labels[images], self.posterior.grid))

    def validate(self) -> dict[str, float]:
        """Return the validation loss in nats at random and at focused locations, and their mean; update the focus."""
        random = self._mean_nll(self.random_cells)
        generator = chance(self.seed, 3, device=self.posterior.device)
        focused = self._mean_nll(self._draw(len(self.val), generator))
        if self.share and self.posterior.maps_are_cheap:
            images = self.val[:FOCUS_IMAGES]
            self._focus(gain_by_location(self.posterior, self.pixels[images], self.labels[images]))
        return {
            "nll_nats": ((random + focused) / 2).mean().item(),
            "nll_nats_random": random.mean().item(),
            "nll_nats_focused": focused.mean().item(),
        }

    def _draw(self, images: int, generator: Generator) -> Int[Tensor, "n T"]:
        T = self.random_cells.shape[1]
        return draw_cells(self.posterior.focus, images=images, glimpses=T, generator=generator)

    def _focus(self, gain: Float[Tensor, " L"]) -> None:
        self.posterior.focus.copy_(focus_on(gain, self.share))

    def _mean_nll(self, cells: Int[Tensor, "v T"]) -> Float[Tensor, " T"]:
        """Return the mean loss of the validation images after t = 1..T glimpses at ``cells``."""
        losses = []
        for images, at in zip(self.val.split(VALIDATION_BATCH), cells.split(VALIDATION_BATCH), strict=True):
            predicted = self.posterior.by_glimpse(look(self.pixels, self.posterior.grid, at, images))
            losses.append(nll(predicted, self.labels[images][:, None]))
        return torch.cat(losses).mean(0)
