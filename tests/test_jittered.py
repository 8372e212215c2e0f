"""Jittered glimpses in training: where they are taken, that all scales move together, and that training resumes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Generator

import nogs
from nogs.data.jittered import Jittered
from nogs.data.pixels import overview
from nogs.glimpses.fovea import fovea, look
from nogs.glimpses.grid import Grid
from staged import silent
from tiny import GLIMPSE_PX, STRIDE_PX, T, write_npz

IMAGES = torch.randint(0, 256, (3, 1, 20, 20), generator=Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("scales", [1, 2])
def test_a_glimpse_is_that_of_a_place_nearby(scales: int) -> None:
    """Every glimpse equals, in all scales, the one at some displacement, and each displacement occurs."""
    grid, jittered = Grid(20, 6, 7, scales), Jittered(IMAGES, 1)
    cells = torch.full((3, 40), len(grid) // 2)
    with jittered.drawing(Generator().manual_seed(1)):
        found = look(jittered, grid, cells).patches
    shifts = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2))
    nearby = fovea(IMAGES, grid, (grid.top_left_px(cells[:, :1]) + shifts).expand(3, -1, -1))
    same = (found[:, :, None] == nearby[:, None]).flatten(3).all(-1)
    assert (same.sum(-1) == 1).all()
    counts = same.sum((0, 1))
    # 120 draws over nine displacements: each is missed with a probability of 7e-7, false alarm 7e-6.
    assert (counts > 0).all()


def test_the_overview_stays_and_glimpses_need_a_draw() -> None:
    jittered, rows = Jittered(IMAGES, 3), torch.tensor([2, 0])
    assert torch.equal(overview(jittered, rows, 5), overview(IMAGES, rows, 5))
    assert torch.equal(jittered[rows], IMAGES[rows])
    with pytest.raises(ValueError, match="within `drawing`"):
        look(jittered, Grid(20, 6, 7), torch.zeros(3, 1, dtype=torch.long))


def test_training_with_jitter_resumes_bit_for_bit_and_differs_from_none(tmp_path: Path) -> None:
    source = nogs.Source(data=f"npz:{write_npz(tmp_path / 'images.npz')}")
    shape = nogs.Geometry(glimpse_size=GLIMPSE_PX, stride=STRIDE_PX, glimpses=T)

    def trained(name: str, *, iterations: int, jitter: int = 1, resume: bool = False) -> bytes:
        fit = nogs.Optimisation(iterations=iterations, batch_size=16, validate_every=5)
        machine = nogs.Machine(tmp_path / name, resume=resume, device="cpu")
        nogs.train(nogs.Train(machine, source, shape, fit, network=nogs.AttentionNetwork(8), jitter=jitter), silent)
        return (tmp_path / name / "model.safetensors").read_bytes()

    whole = trained("whole", iterations=10)
    trained("part", iterations=5)
    assert trained("part", iterations=10, resume=True) == whole
    assert trained("none", iterations=10, jitter=0) != whole
