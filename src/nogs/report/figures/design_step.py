"""The design of one glimpse: what was seen, completions of it, the gain map of each, and their mean.

Each completion x_n of the glimpses so far has a map KL(g_n(l) ‖ Σ_m w_m g_m(l)) in nats: how far a glimpse at l moves
the posterior if x_n is the image. Their weighted mean is the expected information gain, and the search looks next
where it is greatest (Harvey 2024).
"""

from __future__ import annotations

from jaxtyping import Shaped
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from nogs.glimpses.grid import Grid
from nogs.report.figures.gain_maps import chosen_by
from nogs.report.figures.maps import GAMMA, head, outline, paint, panels, scale, show
from nogs.report.read import Material, Step
from nogs.report.section import Drawing, Section


def section(material: Material) -> Section | None:
    """The example whose map has the greatest gain."""
    steps = [(example, example.step) for example in material.examples if example.step is not None]
    if not material.design or not steps:
        return None
    example, step = max(steps, key=lambda pair: float(pair[1].mean_nats.max()))
    picture = material.mean_image if material.publishable else example.picture
    seen, k = len(step.cells) - 1, len(step.weights)
    of = (
        f"the {k} heaviest completions of a test image (the photographs are not shown)"
        if material.publishable
        else f"a test image, and the {k} heaviest of the images that complete it"
    )
    return Section(
        "design-of-a-glimpse",
        "How the next glimpse is designed",
        f"After {seen} glimpse{'s' if seen > 1 else ''}: {of}. Each map shows how far a glimpse at a location moves "
        "the posterior if that completion is the image, KL(gₙ ‖ mean g) in nats. The last map is their weighted "
        f"mean over all completions, the expected information gain, {float(step.mean_nats.max()):.2g} nats at its "
        f"greatest. Its square is the next glimpse, {chosen_by(material.design)}.",
        (
            Drawing(
                "pixels seen, completions of them, the information gain of each, and their mean",
                lambda: design_of_a_glimpse(step, picture, material.grid, photographs=not material.publishable),
            ),
        ),
    )


def design_of_a_glimpse(step: Step, picture: Shaped[Tensor, "c H H"], grid: Grid, *, photographs: bool) -> Figure:
    """Draw, from left to right: the pixels seen, the completions and their maps, the mean map and its choice.

    Without ``photographs`` the completions are left out, and ``picture`` is the mean image.
    """
    k = len(step.gains_nats)
    figure, axes = panels(1 + photographs, k + 2, grid, side=1.15, margin=0.7)
    *before, chosen = grid.squares_px(step.cells).tolist()
    most = float(max(step.gains_nats.max(), step.mean_nats.max()))
    norm = PowerNorm(GAMMA, vmin=min(0.0, float(step.mean_nats.min())), vmax=most)
    shown = [(axes[0, 0], picture, before)]
    if photographs:
        shown += [(axes[0, 1 + n], step.completions[n], before) for n in range(k)]
        shown.append((axes[0, -1], picture, [*before, chosen]))
        axes[1, 0].axis("off")
    for ax, pixels, squares_px in shown:
        show(ax, pixels, grid, seen_px=squares_px)
        for square_px in squares_px:
            outline(ax, square_px, strong=square_px is chosen)
    for n in range(k):
        painted = paint(axes[-1, 1 + n], step.gains_nats[n], grid, norm)
        head(axes[0, 1 + n], f"completion {n + 1}\nweight {100 * float(step.weights[n]):.0f} %")
    paint(axes[-1, -1], step.mean_nats, grid, norm)
    outline(axes[-1, -1], chosen)
    head(axes[0, 0], f"seen, {len(before)} glimpse" + ("s" if len(before) > 1 else ""))
    head(axes[0, -1], "mean over all,\nand the choice")
    scale(figure, painted, axes, most_nats=most)
    return figure
