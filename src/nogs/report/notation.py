"""How figures are written: counts, shares, losses, durations."""

from __future__ import annotations

Real = int | float
"""A number in a JSON file: whole ones come back as int."""


def count(value: Real) -> str:
    """1234.5 → 1,234."""
    return f"{value:,.0f}"


def short_count(value: Real) -> str:
    """1,234,567 → 1.23 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def percent(share: Real) -> str:
    """0.975 → 97.5 %."""
    return f"{100 * share:.1f} %"


def nats(value: Real) -> str:
    """0.26651 → 0.267."""
    return f"{value:.3f}"


def brief(value: Real) -> str:
    """6.54 → 6.5, 1234.5 → 1,234: seconds where the heading names the unit."""
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def seconds(value: Real) -> str:
    """1.2 s, 83 s, 2 min 11 s, 12 min, 3 h 5 min."""
    if value < 120:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    if value < 600:
        return f"{round(value) // 60} min {round(value) % 60} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
