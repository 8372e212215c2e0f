"""Principal components of images, against the full decomposition."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from nogs.completion.pca import principal_components, project


def chance() -> Generator:
    return Generator().manual_seed(0)


def noise(count: int, channels: int = 1, *, px: int) -> Tensor:
    return torch.randint(0, 256, (count, channels, px, px), dtype=torch.uint8, generator=chance())


def test_principal_components_are_those_of_the_full_decomposition() -> None:
    images = noise(60, 3, px=5)
    images[:, :, :2] //= 4  # not alike in all directions
    before = torch.random.get_rng_state()
    mean, components = principal_components(images, components=6, generator=chance())
    assert torch.equal(torch.random.get_rng_state(), before)
    flat = images.flatten(1).numpy().astype(np.float64)
    np.testing.assert_allclose(mean.flatten().numpy(), flat.mean(0), rtol=1e-5)
    V = components.flatten(1).numpy().astype(np.float64)
    spread = np.linalg.norm(V, axis=1)
    V /= spread[:, None]
    np.testing.assert_allclose(V @ V.T, np.eye(6), atol=1e-5)
    kept = ((flat - flat.mean(0)) @ V.T) ** 2
    best = np.linalg.svd(flat - flat.mean(0), compute_uv=False)[:6] ** 2
    assert kept.sum() > 0.98 * best.sum()
    latents = project(images, mean, components).numpy()
    np.testing.assert_allclose(latents * spread, (flat - flat.mean(0)) @ V.T, rtol=1e-3, atol=0.05)
    np.testing.assert_allclose(latents.std(0), 1, rtol=1e-2)
    again = principal_components(images, components=6, generator=chance())
    assert torch.equal(again[1], components)


def test_no_more_components_than_there_are() -> None:
    assert principal_components(noise(9, px=4), components=256, generator=chance())[1].shape == (8, 1, 4, 4)
    assert principal_components(noise(40, px=4), components=256, generator=chance())[1].shape == (16, 1, 4, 4)
