"""Formats of numbers: counts, shares, losses, durations, and bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nogs.evaluation.typed_json import Number
from nogs.evaluation.uncertainty import Bounded

Write = Callable[[Number], str]
NONE = "–"


def count(value: Number) -> str:
    """1234.5 → 1,234."""
    return f"{value:,.0f}"


def short_count(value: Number) -> str:
    """1,234,567 → 1.23 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def percent(share: Number) -> str:
    """0.975 → 97.5 %."""
    return f"{100 * share:.1f} %"


def points(difference: Number) -> str:
    """0.036 → +3.6 points: a difference of two shares."""
    return f"{100 * difference:+.1f} points".replace("-", "−")


def nats(value: Number) -> str:
    """0.26651 → 0.267."""
    return f"{value:.3f}"


def brief_nats(value: Number) -> str:
    """3.14159 → 3.14: nats of which the third digit does not matter."""
    return f"{value:.2f}"


def times(value: Number) -> str:
    """2.84 → 2.8 ×, 0.124 → 0.12 ×."""
    return f"{value:.2g} ×" if value < 1 else f"{value:.1f} ×"


def brief(value: Number) -> str:
    """6.54 → 6.5, 1234.5 → 1,234: seconds in a column whose title names the unit."""
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def seconds(value: Number) -> str:
    """1.2 s, 83 s, 2 min 11 s, 12 min, 3 h 5 min."""
    if value < 120:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    if value < 600:
        return f"{round(value) // 60} min {round(value) % 60} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def p_value(value: Number | None) -> str:
    """0.0312 → p = 0.031."""
    return NONE if value is None else f"p = {value:.2g}"


def bounded(value: Bounded | None, write: Write, *, words: bool = False) -> str:
    """Return a bounded value with its sign (≥, ≤), or in ``words``; a dash if it is unknown."""
    if value is None or value.bound == "unknown":
        return "unknown" if words else NONE
    signs = {"exact": "", "at least": "≥ ", "at most": "≤ "}
    sign = f"{value.bound} " if words and value.bound != "exact" else signs[value.bound]
    return f"{sign}{write(value.value)}"


def listed(parts: Sequence[str]) -> str:
    """a, b and c."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
