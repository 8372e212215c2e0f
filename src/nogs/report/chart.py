"""The chart of one stopping rule: accuracy over mean glimpses, a line a method, with a point for each threshold.

The page draws it as SVG in place, and its script moves a dot along each line; so every point is a place in the chart,
and the figures beside it are text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.ticker import MaxNLocator

from nogs.evaluation.schema import Results
from nogs.evaluation.typed_json import Number
from nogs.report.notation import count, percent, short_count
from nogs.report.style import title_of

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 46
"""Margins, for the labels of the axes."""


class Mark(NamedTuple):
    """A tick: its place on its axis, and its text."""

    place: float
    text: str


class Point(NamedTuple):
    """A threshold: the place in the chart, and its figures as text."""

    x: float
    y: float
    mean_glimpses: str
    macs: str
    accuracy: str


class Line(NamedTuple):
    method: str
    title: str
    points: list[Point]

    @property
    def path(self) -> str:
        """The points attribute of a polyline."""
        return " ".join(f"{point.x},{point.y}" for point in self.points)


class Chart(NamedTuple):
    """``settings``: the thresholds as text, from the fewest glimpses to the most."""

    rule: str
    title: str
    settings: list[str]
    lines: list[Line]
    x_marks: list[Mark]
    y_marks: list[Mark]
    measure: str

    def script(self) -> dict[str, object]:
        """Return what the script needs."""
        return {"settings": self.settings, "lines": {of.method: of.points for of in self.lines}}


class _Figures(NamedTuple):
    threshold: Number
    mean_glimpses: Number
    accuracy: Number
    macs: Number


def chart_of(results: Results, rule: str, title: str) -> Chart | None:
    """Return the chart of a rule; None where no method has it. Where classes are uneven, accuracies are balanced."""
    curves = _curves(results, rule)
    if not curves:
        return None
    first = next(iter(curves.values()))
    T = max(len(scores.macs_by_glimpse) for scores in results.methods.values())
    heights = [point.accuracy for points in curves.values() for point in points]
    ticks = [float(tick) for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(min(heights), max(heights))]
    ticks = [tick for tick in ticks if 0 <= tick <= 1]
    low, high = min(ticks[:1] + heights), max(ticks[-1:] + heights)

    def x(glimpses: Number) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (glimpses - 1) / max(1, T - 1), 1)

    def y(accuracy: Number) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - accuracy) / (high - low or 1), 1)

    lines = [
        Line(
            name,
            title_of(name),
            [
                Point(
                    x(of.mean_glimpses),
                    y(of.accuracy),
                    f"{of.mean_glimpses:.2f}",
                    short_count(of.macs),
                    percent(of.accuracy),
                )
                for of in points
            ],
        )
        for name, points in curves.items()
    ]
    every = -(-T // 10)
    return Chart(
        rule=rule,
        title=title,
        settings=[_setting(rule, of.threshold) for of in first],
        lines=lines,
        x_marks=[Mark(x(t), str(t)) for t in range(1, T + 1, every)],
        y_marks=[Mark(y(tick), f"{100 * tick:.4g} %") for tick in ticks],
        measure="balanced accuracy" if results.test.uneven else "accuracy",
    )


def _curves(results: Results, rule: str) -> Mapping[str, Sequence[_Figures]]:
    """Return method → the points of the rule. The heads that were fitted to stop belong to one method."""
    if rule in ("eig", "accuracy"):
        name, points = results.stopping_method, results.stopping.get(rule, ())
        if name is None or not points or results.test.uneven:  # their mean curve has no balanced accuracies
            return {}
        return {name: [_Figures(of.setting, of.mean_glimpses, of.accuracy, of.macs) for of in points]}
    uneven = results.test.uneven
    return {
        name: [
            _Figures(of.threshold, of.mean_glimpses, of.balanced_accuracy if uneven else of.accuracy, of.macs)
            for of in rules[rule]
        ]
        for name, rules in results.stopping_by_threshold.items()
        if rule in rules
    }


def _setting(rule: str, threshold: Number) -> str:
    if rule == "fixed":
        return f"after {count(threshold)} glimpse" + ("s" if threshold > 1 else "")
    if rule == "confidence":
        return f"above {100 * threshold:.3g} %"
    if rule == "accuracy":
        return f"below {100 * threshold:.2g} points a glimpse".replace("-", "−")
    return f"below {threshold:.2g} nats".replace("-", "−") + (" a glimpse" if rule == "eig" else "")
