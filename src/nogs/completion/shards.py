"""Compressed shards of a bank's own images: thousands of JPEG files in one, each of which can be decoded alone.

A shard holds JPEG files one after the other, the position where each ends, and the PCA latents of the images. It is
memory-mapped, so only the pages that are read take memory. JPEG at quality 95 without chroma subsampling changes pixels
by two or three of 255 and takes a tenth of their size.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

QUALITY = 95
"""JPEG quality, of 100."""


class Shard(NamedTuple):
    """n images as JPEG files one after the other in ``compressed``; ``ends``: the index after the last byte of each."""

    compressed: UInt8[Tensor, " bytes"]
    ends: Int[Tensor, " n"]
    latents: Float[Tensor, "n k"]


def pack(images: UInt8[Tensor, "n c H H"], latents: Float[Tensor, "n k"]) -> Shard:
    """Return the shard of ``images`` (uint8 in [0, 255]), each compressed alone."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        files = list(pool.map(_compress, images.numpy()))
    compressed = torch.frombuffer(bytearray(b"".join(files)), dtype=torch.uint8)
    return Shard(compressed, torch.tensor(list(accumulate(map(len, files)))), latents)


class Pictures:
    """The images of all shards by their index in the bank, decoded at each call."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self._starts = [0, *accumulate(len(shard.ends) for shard in shards)]

    def __call__(self, indices: Int[Tensor, " n"]) -> UInt8[Tensor, "n c H H"]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return torch.from_numpy(np.stack(list(pool.map(self._decode, indices.tolist()))))

    def _decode(self, index: int) -> UInt8[np.ndarray, "c H H"]:
        number = bisect_right(self._starts, index) - 1
        shard, place = self._shards[number], index - self._starts[number]
        start = int(shard.ends[place - 1]) if place else 0
        with Image.open(io.BytesIO(shard.compressed[start : int(shard.ends[place])].numpy().tobytes())) as image:
            pixels = np.asarray(image)
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _compress(image: UInt8[np.ndarray, "c H H"]) -> bytes:
    file = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()
