"""Single test images with the glimpses of a trained network, right and wrong ones."""

from __future__ import annotations

from jaxtyping import Shaped
from matplotlib.figure import Figure
from torch import Tensor

from nogs.glimpses.grid import Grid
from nogs.report.figures.maps import head, outline, panels, show
from nogs.report.notation import listed
from nogs.report.read import Answers, Material
from nogs.report.section import Drawing, Section
from nogs.report.style import INK, LOSS, OUTLINE, plain, short, title_of


def section(material: Material) -> Section:
    answers, classes = material.answers, material.results.classes
    over = "the mean image (the photographs are not shown)" if material.publishable else "the image"
    right = answers.log_probs[:, -1].argmax(-1) == answers.labels
    kinds = [f"the first {int(right.sum())} classified correctly"] if right.any() else []
    if not right.all():
        kinds.append(f"the first {int((~right).sum())} classified wrongly")
    picture = material.mean_image if material.publishable else None
    return Section(
        "answers",
        f"{title_of(answers.method)} on single test images",
        f"Of the test images, {listed(kinds)}, in the order of the split (seed {answers.seed}). On {over}, faded where "
        "unseen, the line joins the glimpses, from the ring to the dot. Above, the answer and its probability; a wrong "
        "answer is red, with the true class beneath.",
        (
            Drawing(
                "test images with the path of the network's glimpses, and its answer",
                lambda: single_images(answers, material.grid, classes, picture=picture),
            ),
        ),
    )


def single_images(
    answers: Answers,
    grid: Grid,
    classes: tuple[str, ...],
    *,
    picture: Shaped[Tensor, "c H H"] | None,
) -> Figure:
    """Draw a panel an image. ``picture`` is drawn in place of all images, if it is given."""
    n = len(answers.labels)
    columns = min(n, 3) if n <= 6 else 4
    figure, axes = panels(-(-n // columns), columns, grid, side=1.55)
    for ax in axes.flat[n:]:
        ax.axis("off")
    for number, ax in enumerate(axes.flat[:n]):
        squares_px = grid.squares_px(answers.cells[number]).tolist()
        show(ax, answers.pixels[number] if picture is None else picture, grid, seen_px=squares_px)
        for square_px in squares_px:
            outline(ax, square_px, strong=False)
        middles = [(column + side / 2, row + side / 2) for row, column, side in squares_px]
        ax.plot(*zip(*middles, strict=True), color=OUTLINE, linewidth=0.9)
        ax.plot(*middles[0], "o", color=OUTLINE, markerfacecolor="none", markersize=6)
        ax.plot(*middles[-1], "o", color=OUTLINE, markersize=4)
        last, label = answers.log_probs[number, -1], int(answers.labels[number])
        answer = int(last.argmax())
        text = f"{plain(short(classes[answer]))}, {100 * float(last[answer].exp()):.0f} %"
        if answer == label:
            head(ax, text, INK)
        else:
            head(ax, f"{text}\nis {plain(short(classes[label]))}", LOSS)
    return figure
