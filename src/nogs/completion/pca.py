"""Principal components of images, in units of their own spread, so that all latents are of one size.

x ≈ μ + Σ_j z_j v_j, where v_j is the j-th principal direction, as long as the standard deviation along it. So z has
variance 1 in every component: it fits a number of half precision whatever the image size, and what a linear map of z
takes up can be read off the map alone (`nogs.completion.proposals`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

FIT_IMAGES = 3000
"""PCA is fitted on so many images of the bank; all are then projected."""
LEAST_SPREAD = 1.0
"""Where images do not vary (a border, a set of copies), the length of v_j: a pixel of the whole image, one step."""


def fitting_sample(count: int, *, generator: Generator) -> Int[Tensor, " n"]:
    """Which of ``count`` images PCA is fitted on, ascending."""
    return torch.randperm(count, generator=generator)[:FIT_IMAGES].sort().values


def principal_components(
    images: UInt8[Tensor, "N c H H"], *, components: int, generator: Generator
) -> tuple[Float[Tensor, "c H H"], Float[Tensor, "k c H H"]]:
    """μ and v_1..v_k, in pixel units of [0, 255], by randomised SVD."""
    flat = images.flatten(1).float()
    mean = flat.mean(0)
    flat -= mean
    rank = min(components, len(flat) - 1, flat.shape[1])
    # svd_lowrank draws from the global generator: lend it ours.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        _, S, V = torch.svd_lowrank(flat, q=min(rank + 16, *flat.shape), niter=2)
    spread = (S[:rank] / len(flat) ** 0.5).clamp_min(LEAST_SPREAD)
    shape = images.shape[1:]
    return mean.reshape(shape), (V[:, :rank] * spread).T.reshape(-1, *shape).contiguous()


def project(
    images: UInt8[Tensor, "N c H H"], mean: Float[Tensor, "c H H"], components: Float[Tensor, "k c H H"]
) -> Float[Tensor, "N k"]:
    """PCA latents z of whole images."""
    directions = components.flatten(1)
    return (images.float() - mean).flatten(1) @ (directions / directions.square().sum(1, keepdim=True)).T
