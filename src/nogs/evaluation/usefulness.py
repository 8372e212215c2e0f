"""The use of a posterior for design: its loss along designed sequences, beside random locations and chance.

A posterior that has learned nothing gives gain maps of noise, and networks that are taught sequences designed with it
learn less than without. Losses are means over t = 1..T glimpses of -log g(θ | y_1:t, l_1:t) in nats, on images that the
posterior was not fitted to. A difference counts if it exceeds two standard errors over images, paired by image.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

Worth = Literal["useful", "no better than random locations", "no better than chance"]
STANDARD_ERRORS = 2.0


class Usefulness(NamedTuple):
    """Mean losses in nats over n = ``images``: at designed and random locations, and of the class frequencies."""

    images: int
    designed_nll_nats: float
    random_nll_nats: float
    chance_nll_nats: float
    worth: Worth

    def warning(self) -> str | None:
        """Return a line with the losses and what to do, or None if the posterior is useful."""
        if self.worth == "useful":
            return None
        return (
            f"the posterior is {self.worth} along the designed sequences: {self.designed_nll_nats:.3f} nats designed, "
            f"{self.random_nll_nats:.3f} random, {self.chance_nll_nats:.3f} by class frequencies, mean of all glimpses "
            f"over {self.images} images. Networks learn little from such sequences: fit the posterior for more "
            "iterations or on more images, or take larger glimpses"
        )


def usefulness(
    designed: Float[Tensor, "n T C"], random: Float[Tensor, "n T C"], labels: Int[Tensor, " n"]
) -> Usefulness:
    """Return how useful a posterior is, from its log-probabilities along designed and along random sequences."""
    along, elsewhere = (-log_probs[range(len(labels)), :, labels].double().mean(1) for log_probs in (designed, random))
    frequencies = labels.bincount().double() / len(labels)
    by_chance = -frequencies[labels].log()
    if not _better(along, by_chance):
        worth: Worth = "no better than chance"
    else:
        worth = "useful" if _better(along, elsewhere) else "no better than random locations"
    return Usefulness(
        images=len(labels),
        designed_nll_nats=along.mean().item(),
        random_nll_nats=elsewhere.mean().item(),
        chance_nll_nats=by_chance.mean().item(),
        worth=worth,
    )


def _better(losses: Float[Tensor, " n"], others: Float[Tensor, " n"]) -> bool:
    difference = others - losses
    error = difference.std(correction=0) / len(difference) ** 0.5
    return bool(difference.mean() > STANDARD_ERRORS * error)
