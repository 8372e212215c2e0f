"""Loss, accuracy and calibration of the posterior by number of glimpses, at designed and at random locations.

What a design is worth is the loss that it saves against random locations; what an image's own sequence is worth is
what it saves against the sequence of another image.
"""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nogs.evaluation.schema import SequenceScores
from nogs.report.notation import nats, points, seconds
from nogs.report.read import Material
from nogs.report.section import Drawing, Section
from nogs.report.style import DESIGNED, RANDOM, WIDTH, share_ticks

PLACES = (
    ("designed for the image", "", DESIGNED, "o-"),
    ("designed for another", "shuffled_", DESIGNED, "o--"),
    ("random", "random_", RANDOM, "o-"),
)
"""Title, prefix of keys in results.json, colour and line."""


def section(material: Material) -> Section | None:
    scores = material.results.sequences
    if scores is None:
        return None
    designed, shuffled, random = (getattr(scores, f"{prefix}nll_nats_by_glimpse")[-1] for _, prefix, *_ in PLACES)
    return Section(
        "posterior",
        "The posterior, and what its designs are worth",
        f"{scores.count} sequences, scored on images that the posterior was not fitted to. After all glimpses its "
        f"loss is {nats(designed)} nats along the image’s own sequence, {nats(shuffled)} along another image’s and "
        f"{nats(random)} at random locations; class frequencies alone have {nats(scores.chance_nll_nats)}. Its "
        f"confidence is off by {points(scores.calibration_error_by_glimpse[-1]).lstrip('+')} at designed locations and "
        f"{points(scores.random_calibration_error_by_glimpse[-1]).lstrip('+')} at random ones. Designing a sequence "
        f"took {seconds(scores.seconds / max(1, scores.count))}.",
        (Drawing("loss, accuracy and calibration error of the posterior by glimpse", lambda: posterior(scores)),),
    )


def posterior(scores: SequenceScores) -> Figure:
    """Draw loss, accuracy and calibration error by glimpse, a panel each."""
    figure = Figure(figsize=(WIDTH, 2.9))
    axes = figure.subplots(1, 3)
    for ax, (title, key) in zip(
        axes,
        (("loss (nats)", "nll_nats"), ("accuracy", "accuracy"), ("calibration error", "calibration_error")),
        strict=True,
    ):
        for label, prefix, colour, line in PLACES:
            values = getattr(scores, f"{prefix}{key}_by_glimpse")
            ax.plot(range(1, len(values) + 1), values, line, color=colour, label=label, markersize=3.5)
        ax.set_title(title)
        ax.set_xlabel("glimpses")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        if key != "nll_nats":
            ax.yaxis.set_major_formatter(share_ticks())
    figure.legend(handles=axes[0].get_lines(), loc="outside lower center", ncols=3)
    return figure
