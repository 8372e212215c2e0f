"""The masked image: an image where it was observed, 0 elsewhere, and the mask of observed pixels as a channel.

The input of the AVP-CNN (Harvey, Teng and Wood, *Near-Optimal Glimpse Sequences*, section 4.2).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nogs.data.pixels import pixel_index, within_image
from nogs.glimpses.fovea import Glimpses
from nogs.glimpses.grid import Grid


def masked_image(glimpses: Glimpses, grid: Grid) -> Float[Tensor, "B c_and_mask H H"]:
    """Return each image times its mask of observed pixels, in [0, 1], and that mask as the last channel.

    Pixels that were not observed are 0. Coarser scales are painted first and leave 2^-scale in the mask, which marks
    averaged pixels. Where squares of one scale overlap (coarse ones with different values), their
    mean is painted, so that the result does not depend on the order of the glimpses.
    """
    patches, cells = glimpses
    B, _, cs, g, _ = patches.shape
    c, H = cs // grid.scales, grid.image_px
    canvas = torch.zeros(B, c + 1, H * H, device=patches.device)
    top_left_px = grid.top_left_px(cells)
    for scale in reversed(range(grid.scales)):
        widen = 2**scale
        square = patches[:, :, scale * c : (scale + 1) * c].transpose(1, 2).float()
        square = square.repeat_interleave(widen, -1).repeat_interleave(widen, -2)
        one = square.new_ones(B, 1, *square.shape[2:])
        span = torch.arange(g * widen, device=patches.device) - g * (widen - 1) // 2
        index = pixel_index(top_left_px, span, H, H)
        inside = within_image(top_left_px, span, H, H)
        painted = torch.cat((square, one), dim=1).reshape(B, c + 1, -1)
        # Pixels beyond the border are added to one extra element, which is discarded.
        target = torch.where(inside, index, H * H).reshape(B, 1, -1).expand(B, c + 1, -1)
        # Sums of whole numbers are exact in floats, so their order makes no difference.
        total = canvas.new_zeros(B, c + 1, H * H + 1).scatter_add(2, target, painted)[..., : H * H]
        count = total[:, c:]
        mean = total[:, :c] / count.clamp_min(1) / 255
        canvas = torch.where(count > 0, torch.cat((mean, torch.full_like(count, 1 / widen)), dim=1), canvas)
    return canvas.reshape(B, c + 1, H, H)
