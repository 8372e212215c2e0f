"""Damaged model files: every kind of damage is one line, and nothing large is allocated."""

from __future__ import annotations

import copy
import json
import random
import resource
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nogs
from nogs.specs import HardAttentionSpec
from tiny import CLASSES, GLIMPSE_PX, IMAGE_PX, STRIDE_PX, T

VALUES = (None, 0, -1, 1, 2**14, 10**6, 2**31, 10**18, 1e308, float("nan"), "x", "0" * 50, True, [], {}, [[]])
COUNT = 1000
EXTRA_MIB = 100
"""Memory that torch and safetensors may take beside the file, which has 20 KB."""


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("stranger")
    spec = HardAttentionSpec(nogs.Grid(IMAGE_PX, GLIMPSE_PX, STRIDE_PX), 1, CLASSES, 8, T, "gain", overview_px=4)
    torch.manual_seed(0)
    nogs.Model(spec, spec.build()).save(folder)
    return (folder / "model.safetensors").read_bytes()


def test_a_file_with_random_harm_is_refused_or_answers(content: bytes, tmp_path: Path) -> None:
    rng, image, refusals = random.Random(0), np.zeros((IMAGE_PX, IMAGE_PX), np.uint8), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(COUNT):
        (tmp_path / "model.safetensors").write_bytes(harmed(content, rng))
        try:
            answer = nogs.load_model(tmp_path).predict(image)
        except nogs.UserError as error:
            refusals.append(str(error))
        else:
            assert len(answer.glimpses) == answer.steps
    assert len(refusals) > COUNT / 2
    assert not [text for text in refusals if "\n" in text or len(text) > 500]
    if sys.platform == "linux":  # in KiB
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1024 * EXTRA_MIB


def harmed(content: bytes, rng: random.Random) -> bytes:
    """Return the file with its spec, its header or its bytes changed, or cut short or too long."""
    length = struct.unpack("<Q", content[:8])[0]
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    kind = rng.choice(["spec", "header", "bytes", "length"])
    if kind == "spec":
        spec = json.loads(header["__metadata__"]["nogs"])
        for _ in range(rng.choice([1, 2])):
            change(spec, rng)
        header["__metadata__"]["nogs"] = json.dumps(spec)
    elif kind == "header":
        change(header, rng)
    elif kind == "bytes":
        flipped = bytearray(content)
        for _ in range(rng.choice([1, 3, 10])):
            flipped[rng.randrange(8 + length)] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    else:
        return content[: rng.randrange(len(content))] if rng.random() < 0.7 else content + bytes(rng.randrange(1, 100))
    changed = json.dumps(header).encode()
    return struct.pack("<Q", len(changed)) + changed + body


def change(values: Any, rng: random.Random) -> None:
    """Remove, rename or replace one value anywhere in JSON values."""
    place, key = rng.choice(list(places(values)))
    if isinstance(place, dict) and rng.random() < 0.2:
        del place[key]
    elif isinstance(place, dict) and rng.random() < 0.1:
        place["unknown"] = place.pop(key)
    else:
        place[key] = copy.deepcopy(rng.choice(VALUES))


def places(values: Any) -> Any:
    """Yield (container, key or index) of every value in JSON values."""
    for key, value in list(values.items() if isinstance(values, dict) else enumerate(values)):
        yield values, key
        if isinstance(value, dict | list):
            yield from places(value)
