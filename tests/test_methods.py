"""The table of methods against the paper's, and who looks where."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from nogs.attention.choosers import along, anywhere, at, greedy, sampling
from nogs.attention.methods import METHODS, chooser, method
from nogs.errors import UserError
from nogs.glimpses.grid import Grid

PAPER = {
    "ram": ("RAM", "none", "reinforce"),
    "ws-ram": ("WS-RAM", "none", "wake-sleep"),
    "ps-ram": ("PS-RAM", "record", "reinforce"),
    "ps-hgs": ("PS-HGS", "given", "reinforce"),
    "ps-nogs": ("PS-NOGS", "search", "reinforce"),
}
"""shared/method.md, section 3."""
STOPPING = {"act": ("ACT", "search", "act")}
"""Section 4: the rival of PS-NOGS that is trained to stop."""
LEARNED = {
    "gain": ("Learned gain", "none", "gain"),
    "gain-nogs": ("Learned gain from NOGS", "search", "gain-nogs"),
}
"""Section 9: gain maps learned from realised gains, from nothing and from designed sequences."""
SELECTION = {"dime": ("DIME", "none", "dime"), "gdfs": ("GDFS", "none", "gdfs")}
"""Section 9: rivals from dynamic feature selection."""
CONTROLS = {"random": "none", "centre": "none", "path": "path"}
"""Controls without a policy, and where their sequences come from."""
PATH = (5, 2, 7)
L, NOBODY_KNOWS = 9, torch.zeros(60_000, 9)


def test_the_rows_are_the_papers_and_the_controls() -> None:
    assert METHODS.keys() == PAPER.keys() | STOPPING.keys() | LEARNED.keys() | SELECTION.keys() | CONTROLS.keys()
    for name, row in (PAPER | STOPPING | LEARNED | SELECTION).items():
        assert tuple(METHODS[name])[:3] == row
        assert METHODS[name].looks == "policy"
    for name, sequences in CONTROLS.items():
        assert tuple(METHODS[name])[1:] == (sequences, "none", name)


def test_a_method_that_does_not_exist_is_refused_in_the_name_of_its_flag() -> None:
    with pytest.raises(UserError, match=r"^methods=rum does not exist: choose among ram, "):
        method("rum")
    with pytest.raises(UserError, match=r"^method=rum does not exist"):
        method("rum", argument="method")


def test_anywhere_is_uniform_in_every_image_and_step() -> None:
    """60,000 draws of nine cells: a share is off by 0.008 once in 10^9 (six standard deviations)."""
    choose = anywhere(L, Generator().manual_seed(0))
    first, second = choose(NOBODY_KNOWS, 0), choose(NOBODY_KNOWS, 1)
    shares = torch.bincount(first * L + second, minlength=L * L).unflatten(0, (L, L)) / len(first)
    torch.testing.assert_close(shares.sum(0), torch.full((L,), 1 / L), rtol=0, atol=0.008)
    torch.testing.assert_close(shares.sum(1), torch.full((L,), 1 / L), rtol=0, atol=0.008)
    # Pairs are independent: 1/81, six standard deviations are 0.0027.
    torch.testing.assert_close(shares, torch.full((L, L), 1 / L**2), rtol=0, atol=0.0028)


def test_controls_do_not_ask_the_policy() -> None:
    sure, other = torch.full((7, L), -50.0), torch.full((7, L), -50.0)
    sure[:, 8], other[:, 0] = 50.0, 50.0
    grid = Grid(16, 6, 5)
    assert at(3)(sure, 0).tolist() == [3] * 7
    for name in CONTROLS:
        drawn = [
            chooser(METHODS[name], grid, generator=Generator().manual_seed(4), path=PATH)(logits, 0)
            for logits in (sure, other)
        ]
        assert torch.equal(*drawn)
    for name in PAPER:
        choose = chooser(METHODS[name], grid, generator=Generator())
        assert choose(sure, 0).tolist() == [8] * 7
        assert choose(other, 1).tolist() == [0] * 7


def test_a_path_is_followed_by_every_image_whatever_the_logits() -> None:
    logits = torch.randn(4, L, generator=Generator().manual_seed(0))
    for t, cell in enumerate(PATH):
        assert along(PATH)(logits, t).tolist() == [cell] * 4
        assert chooser(METHODS["path"], Grid(16, 6, 5), generator=Generator(), path=PATH)(logits, t)[0] == cell
    with pytest.raises(ValueError, match="path=None: this method looks along one path"):
        chooser(METHODS["path"], Grid(16, 6, 5), generator=Generator())


def test_a_policy_can_be_sampled() -> None:
    generator = Generator().manual_seed(0)
    choose = chooser(METHODS["ram"], Grid(16, 6, 5), generator=generator, policy=sampling(generator))
    assert len(choose(NOBODY_KNOWS, 0).unique()) == L
    assert len(greedy(NOBODY_KNOWS, 0).unique()) == 1


@pytest.mark.parametrize("grid", [Grid(16, 6, 5), Grid(17, 5, 4), Grid(20, 6, 3), Grid(9, 9, 1), Grid(31, 4, 5)])
def test_the_centre_is_the_cell_nearest_to_it(grid: Grid) -> None:
    """Against every cell, in pixels."""
    cell = int(chooser(METHODS["centre"], grid, generator=Generator())(torch.zeros(1, len(grid)), 0))
    middle = (grid.image_px - grid.glimpse_px) / 2

    def distance(cell: int) -> float:
        row, column = divmod(cell, grid.side)
        return (grid.offsets_px[row] - middle) ** 2 + (grid.offsets_px[column] - middle) ** 2

    assert distance(cell) == min(map(distance, range(len(grid))))
