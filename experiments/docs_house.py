"""Draw docs/pictures/house.svg, the rooms of the package in the layers of the import contract:

python experiments/docs_house.py
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
WIDTH, ROW, GAP, ROOM = 640, 34, 8, 116
GROUPS = {
    "commands": ("cli", "#dbe4ff"),
    "verbs": ("stages", "#e5dbff"),
    "judging and keeping": ("evaluation", "#ffe8cc"),
    "the method": ("design", "#d3f9d8"),
    "material": ("sequences", "#fff3bf"),
    "ground": ("runs", "#e9ecef"),
}
"""Title of a group → a room of its first layer, and its colour."""


def layers() -> list[list[str]]:
    """Return the rooms of each layer, from the top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = (contract for contract in contracts if contract["type"] == "layers")
    return [[name.strip(" ()") for name in layer.split("|")] for layer in contract["layers"]]


def drawn(rows: list[list[str]]) -> str:
    """Return the SVG: a row of boxes for each layer, with the title of a group beside its first layer."""
    height = len(rows) * (ROW + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="14" text-anchor="middle">',
        "<title>The rooms of the package: each imports only rooms of lower rows</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    colour = ""
    for number, rooms in enumerate(rows):
        top = GAP + number * (ROW + GAP)
        for title, (first, of_group) in GROUPS.items():
            if first in rooms:
                colour = of_group
                parts.append(f'<text x="80" y="{top + 22}" fill="#495057" font-style="italic">{title}</text>')
        left = 170 + (WIDTH - 180 - len(rooms) * (ROOM + GAP)) / 2
        for place, room in enumerate(rooms):
            x = left + place * (ROOM + GAP)
            parts.append(
                f'<rect x="{x:g}" y="{top}" width="{ROOM}" height="{ROW}" rx="5" fill="{colour}" stroke="#868e96"/>'
            )
            parts.append(f'<text x="{x + ROOM / 2:g}" y="{top + 22}" fill="#212529">{room}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    (ROOT / "docs" / "pictures" / "house.svg").write_text(drawn(layers()))


if __name__ == "__main__":
    main()
