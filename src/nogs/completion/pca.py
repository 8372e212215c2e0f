"""Principal components of images, scaled so that every latent has variance 1.

x ≈ μ + Σ_j z_j v_j, where v_j is the j-th principal direction, scaled to the standard deviation along it. Latents z
therefore fit into half precision at any image size, and the directions in which a linear map of z varies most are the
singular directions of that map (`nogs.completion.proposals`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

FIT_IMAGES = 3000
"""Images of the bank that PCA is fitted on. All images are projected."""
MIN_SPREAD = 1.0
"""Least length of v_j in pixel values: one pixel by one step of 255. Directions without variation have this length."""


def fitting_sample(count: int, *, generator: Generator) -> Int[Tensor, " n"]:
    """Return the indices of those of ``count`` images that PCA is fitted on, ascending."""
    return torch.randperm(count, generator=generator)[:FIT_IMAGES].sort().values


def principal_components(
    images: UInt8[Tensor, "N c H H"], *, components: int, generator: Generator
) -> tuple[Float[Tensor, "c H H"], Float[Tensor, "k c H H"]]:
    """Return μ and v_1..v_k in pixel units of [0, 255], by randomised SVD.

    k is ``components``, or less if the images span fewer directions.
    """
    flat = images.flatten(1).float()
    mean = flat.mean(0)
    flat -= mean
    rank = min(components, len(flat) - 1, flat.shape[1])
    # svd_lowrank draws from the global generator, which is seeded for this call and restored after it.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        _, S, V = torch.svd_lowrank(flat, q=min(rank + 16, *flat.shape), niter=2)
    spread = (S[:rank] / len(flat) ** 0.5).clamp_min(MIN_SPREAD)
    shape = images.shape[1:]
    return mean.reshape(shape), (V[:, :rank] * spread).T.reshape(-1, *shape).contiguous()


def project(
    images: UInt8[Tensor, "N c H H"], mean: Float[Tensor, "c H H"], components: Float[Tensor, "k c H H"]
) -> Float[Tensor, "N k"]:
    """Return the PCA latents z of whole images."""
    directions = components.flatten(1)
    return (images.float() - mean).flatten(1) @ (directions / directions.square().sum(1, keepdim=True)).T
