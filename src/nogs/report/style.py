"""Colours, fonts and names of the report: one colour for each method and each stopping rule.

Figures are drawn in the colours of light paper. In their SVG each of these colours becomes a variable that a dark
screen sets to its counterpart (`for_both_papers`). Text from users (class and data names) is never read as
mathematics, and is cut to one line.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.ticker import FuncFormatter

from nogs.attention.methods import METHODS

LONGEST_NAME = 22
WIDTH = 6.4
"""Width of a panel in inches, at which letters can be read on a phone. Wide pages set panels side by side."""
OUTLINE = "#18c5ff"
"""Outline of a glimpse, seen on photographs and on every colour of the maps."""
RULES = {
    "eig": "Entropy gain",
    "accuracy": "Accuracy gain",
    "map": "Gain map",
    "confidence": "Confidence",
    "act": "ACT",
    "act_joint": "ACT, trained jointly",
    "stochastic": "Stochastic stop",
    "fixed": "Fixed number",
    "fixed_per_task": "Fixed number for each task",
}
"""Titles of stopping rules, in the order of figures; the last one is of several tasks."""
ARCHITECTURE_TITLES = {"shufflenet-v2": "ShuffleNetV2", "mobilenet-v2": "MobileNetV2"}
"""Titles of CNNs on whole images; others have the name of their architecture."""
Pair = tuple[str, str]
"""A colour on light paper, and on dark."""
BASIC: dict[str, Pair] = {
    "paper": ("#ffffff", "#171c24"),
    "ink": ("#1d2430", "#e6eaf0"),
    "faint": ("#5c6675", "#98a3b3"),
    "line": ("#d5dae2", "#3a4453"),
    "fill": ("#f3f5f8", "#222935"),
    "designed": ("#1f8a5b", "#4fc48d"),
    "random": ("#8a93a3", "#8d97a8"),
    "around": ("#eef1f5", "#0f131a"),
    "wrong": ("#b42318", "#ff8f87"),
}
OF_METHOD: dict[str, Pair] = {
    "ram": ("#3567b0", "#6f9fe6"),
    "ps-nogs": ("#d4552a", "#f58459"),
    "ws-ram": ("#7a58b5", "#ab8ce0"),
    "ps-ram": ("#0f8f9c", "#4cc3cf"),
    "ps-hgs": ("#b07d10", "#deb04d"),
    "random": ("#7d8796", "#9aa5b5"),
    "centre": ("#a23b72", "#dd7fb0"),
    "path": ("#4d7c0f", "#a3d65c"),
    "act": ("#c2255c", "#f27ba0"),
    "gain": ("#0b6e4f", "#3ddc97"),
    "gain-nogs": ("#9a6a00", "#ffcf5c"),
    "dime": ("#5c4a1e", "#c9ad6a"),
    "gdfs": ("#8a1c4a", "#f08bb4"),
}
OF_RULE: dict[str, Pair] = {
    "eig": ("#b5179e", "#f06fdb"),
    "accuracy": ("#d9822b", "#f5ab61"),
    "map": ("#0b6e4f", "#3ddc97"),
    "confidence": ("#5b7f2b", "#9fc768"),
    "act": ("#0b7285", "#4cc3cf"),
    "act_joint": ("#1864ab", "#74c0fc"),
    "stochastic": ("#7b4b2a", "#c99b78"),
    "fixed": ("#4d5a70", "#a5b1c6"),
    "fixed_per_task": ("#8a94a6", "#707c92"),
}
OTHERS: tuple[Pair, ...] = (("#c92a2a", "#ff8787"), ("#5f3dc4", "#a18bf0"), ("#087f5b", "#38d9a9"))
"""Colours of methods that have none of their own."""
DARK_OF = dict((*BASIC.values(), *OF_METHOD.values(), *OF_RULE.values(), *OTHERS))
PAPER, INK, FAINT, LINE, FILL, DESIGNED, RANDOM, *_ = (light for light, _ in BASIC.values())
RULE_COLOURS = {rule: light for rule, (light, _) in OF_RULE.items()}
LOSS = OTHERS[0][0]
"""Colour of wrong answers."""


def colour_of(method: str) -> str:
    """Return the colour of a method on light paper."""
    return OF_METHOD[method][0] if method in OF_METHOD else OTHERS[sum(map(ord, method)) % len(OTHERS)][0]


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save figures in this style. The settings of matplotlib are restored afterwards."""
    settings: Any = {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 9.5,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "figure.constrained_layout.use": True,
        "grid.color": LINE,
        "grid.linewidth": 0.6,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "axes.edgecolor": LINE,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "text.color": INK,
        "axes.facecolor": PAPER,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        "lines.solid_capstyle": "round",
        "svg.fonttype": "path",
        "svg.hashsalt": "nogs",
        "pdf.fonttype": 42,
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes, which is no reason to fail.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def for_both_papers(svg: str) -> str:
    """Return an SVG whose colours follow the reader's screen, light or dark.

    A style sheet inside the image defines a variable for each colour of this module that the image uses.
    """
    used = sorted({colour for colour in re.findall(r"#[0-9a-f]{6}\b", svg) if colour in DARK_OF})
    light, dark = (
        "".join(f"--c{colour[1:]}:{there};" for colour, there in zip(used, theres, strict=True))
        for theres in (used, [DARK_OF[colour] for colour in used])
    )
    sheet = f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    recoloured = re.sub(
        r"#[0-9a-f]{6}\b", lambda match: f"var(--c{match[0][1:]})" if match[0] in DARK_OF else match[0], svg
    )
    return re.sub(r"(<svg\b[^>]*>)", lambda opening: opening[0] + sheet, recoloured, count=1)


def share_ticks() -> FuncFormatter:
    """Format ticks: 0.975 → 97.5%, with no more digits than they need."""
    return FuncFormatter(lambda value, _: f"{100 * value:.4g}%")


def count_ticks() -> FuncFormatter:
    """Format ticks: 1234 → 1,234."""
    return FuncFormatter(lambda value, _: f"{value:,.10g}")


def title_of(method: str) -> str:
    """Return the title of a method in tables and figures."""
    return METHODS[method].title if method in METHODS else method.upper()


def plain(name: str) -> str:
    """Return a user's text for a figure, with no mathematics in it."""
    return name.replace("$", r"\$")


def short(name: str) -> str:
    """Return a user's name on one line, cut to `LONGEST_NAME` characters."""
    line = " ".join(name.split())
    return line if len(line) <= LONGEST_NAME else line[: LONGEST_NAME - 1] + "…"
