"""The sections of the page: which figure stands where, under which title and caption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from nogs.report import captions
from nogs.report.figures import cost_parts, costs, design_step, maps, seconds, states, stopping, training
from nogs.report.read import Material
from nogs.report.style import Palette, title_of
from nogs.report.tables import Numbers

Draw = Callable[[Palette], Figure]


@dataclass(frozen=True)
class Section:
    """A figure, or several alike, under one title and caption; without any, ``caption`` says why."""

    id: str
    title: str
    caption: str
    draws: tuple[tuple[str, Draw], ...]
    """(what it shows, for those who cannot see it; how it is drawn)"""
    table: Numbers | None = None
    coloured_pixels: bool = False
    """whether pixels of its figures hold colours of the palette, so that they are drawn for each"""


def sections_of(material: Material, *, publishable: bool) -> list[Section]:
    """In their order. What older runs lack is left out; what every run should have says why it is missing."""
    results, methods, grid, mean_image = material.results, material.methods, material.grid, material.mean_image
    logged = any(rows for seeds in material.logs.values() for rows in seeds)
    examples: tuple[tuple[str, Draw], ...] = ()
    looks = looks_of(material)
    if grid is not None and mean_image is not None:
        examples = tuple(_example(material, number, publishable) for number in range(len(material.examples)))
    iterations = {name: material.trained(name, "iteration") for name in methods}
    missing = "Not drawn: the evaluation kept no example images."
    return [
        *_end_to_end(material),
        *_breakdown(material),
        Section(
            "network",
            "The network and its posterior at a glance",
            captions.network_and_posterior(material),
            (
                (
                    "block diagram of the network, and curves of the posterior by glimpse",
                    lambda p: training.network_and_posterior(
                        results,
                        p,
                        glimpse_px=grid.glimpse_px if grid else None,
                        locations=len(grid) if grid else None,
                        hidden=material.hidden,
                    ),
                ),
            ),
        ),
        *_overview(material, publishable),
        *_states(material),
        Section(
            "information-gain",
            "Where the next glimpse would tell most",
            captions.information_gain(material, publishable=publishable) if examples else missing,
            examples,
        ),
        Section(
            "where-they-look",
            "Where each method looks",
            captions.where_they_look(material) if looks else missing,
            looks,
            coloured_pixels=True,
        ),
        Section(
            "validation-loss",
            "Learning, by iterations and by seconds",
            captions.validation_loss(material) if logged else "Not drawn: the logs of training are missing.",
            (
                (
                    "validation loss over iterations and over seconds, for each method and seed",
                    lambda p: training.validation_loss(material.logs, results["target_nll_nats"], p),
                ),
            )
            if logged
            else (),
        ),
        Section(
            "iterations",
            "Iterations to the target and to convergence",
            captions.races(material),
            (
                (
                    "iterations to target and to convergence of each method and seed",
                    lambda p: training.races(methods, iterations, p),
                ),
            ),
        ),
        Section(
            "accuracy",
            "Accuracy, glimpse by glimpse",
            captions.accuracy_by_glimpse(material),
            (("test accuracy by number of glimpses", lambda p: training.accuracy_by_glimpse(methods, p)),),
        ),
        *_costs(material),
        *_stopping(material),
    ]


def looks_of(material: Material) -> tuple[tuple[str, Draw], ...]:
    """The figure of where each method looks, if anything is known of it."""
    grid, mean_image = material.grid, material.mean_image
    if grid is None or mean_image is None or not (material.looks or material.designed is not None):
        return ()
    return (
        (
            "heat maps over the mean image, a row a method and a column a glimpse",
            lambda p: maps.where_they_look(_rows(material, p), mean_image, grid, p),
        ),
    )


def _end_to_end(material: Material) -> list[Section]:
    rows = seconds.spent(material)
    if not rows:
        return []
    draws = (("bars of seconds, a stack a method", lambda p: seconds.seconds_to_target(rows, p)),)
    caption, numbers = captions.end_to_end(rows, material), seconds.table(rows)
    return [Section("end-to-end", "From nothing to the target, everything counted", caption, draws, numbers)]


def _breakdown(material: Material) -> list[Section]:
    parts = cost_parts.parts_of_a_glimpse(material)
    if not parts:
        return []
    draws = (("bars of multiply-adds", lambda p: cost_parts.where_cost_goes(parts, p)),)
    return [Section("cost-of-a-glimpse", "What a glimpse costs", captions.BREAKDOWN, draws)]


def _overview(material: Material, publishable: bool) -> list[Section]:
    """The design of one glimpse, for the example whose map says most."""
    grid, mean_image = material.grid, material.mean_image
    found = [(example, example.step) for example in material.examples if example.step is not None]
    if not found or grid is None or mean_image is None:
        return []
    example, step = max(found, key=lambda pair: float(pair[1].mean_nats.max()))
    picture = mean_image if publishable else example.picture
    alt = "what was seen, completions of it, the information gain of each, and their mean"
    return [
        Section(
            "design-of-a-glimpse",
            "How the next glimpse is designed",
            captions.design_of_a_glimpse(material, step, publishable=publishable),
            (
                (
                    alt,
                    lambda p: design_step.design_of_a_glimpse(step, picture, grid, p, photographs=not publishable),
                ),
            ),
        )
    ]


def _states(material: Material) -> list[Section]:
    if material.states is None:
        return []
    hidden, labels = material.states
    classes = material.results["classes"]
    draws = (
        (
            "scatter of the posterior's states, a panel a glimpse",
            lambda p: states.posterior_states(hidden, labels, classes, p),
        ),
    )
    return [
        Section(
            "states",
            "What the posterior has made of it",
            captions.posterior_states(len(hidden)),
            draws,
            coloured_pixels=True,
        )
    ]


def _costs(material: Material) -> list[Section]:
    found = material.costs
    if not found.cnn and not found.upper_bound and not found.adaptive:
        return []
    draws = (("accuracy over multiply-adds an image", lambda p: costs.accuracy_over_cost(found, p)),)
    return [Section("cost", "Accuracy for its cost", captions.accuracy_over_cost(found), draws)]


def _stopping(material: Material) -> list[Section]:
    results = material.results
    if not results.get("stopping"):
        return []
    by_seed, advantage = results.get("stopping_by_seed", {}), results.get("stopping_advantage", {})
    draws = (
        (
            "accuracy over mean glimpses for each stopping rule, and the advantage of the expected gains",
            lambda p: stopping.stopping(results["stopping"], by_seed, advantage, p),
        ),
    )
    return [Section("stopping", "Stopping when enough was seen", captions.stopping(material), draws)]


def _example(material: Material, number: int, publishable: bool) -> tuple[str, Draw]:
    example, grid, mean_image = material.examples[number], material.grid, material.mean_image
    assert grid is not None
    assert mean_image is not None
    name = maps.example_name(number + 1, material.results["classes"][example.label])
    most_nats = max(float(other.eig.max()) for other in material.examples)
    picture = mean_image if publishable else example.picture
    return (
        f"{name}: maps of information gain above, glimpses below",
        lambda p: maps.information_gain(example, picture, grid, p, name=name, most_nats=most_nats),
    )


def _rows(material: Material, palette: Palette) -> dict[str, tuple[str, Any]]:
    rows = {title_of(name): (palette.method(name), shares) for name, shares in material.looks.items()}
    if material.designed is not None:
        rows["Designed"] = (palette.designed, material.designed)
    return rows
