"""Ratios of latencies of one image on one thread, measured in turns in processor time."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exported import lively, traceable
from nogs.export import nogs_onnx
from nogs.export.description import describe
from nogs.export.graphs import export_graphs
from nogs.export.rules import GainMap
from nogs.glimpses.grid import Grid
from nogs.specs import HardAttentionSpec

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "latency.py"
CNN = "mobilenet-v2:256:0.5"
"""The cheapest CNN that was as accurate on `needles` (docs/results/README.md)."""
IMAGES = 30


@pytest.mark.slow
def test_a_network_for_needles_is_several_times_faster_than_a_cnn(tmp_path: Path) -> None:
    """With one glimpse at least three times; three glimpses take longer, and less time than the CNN."""
    spec = HardAttentionSpec(Grid(256, 32, 4), 1, tuple("0123456789"), 64, 3, "gain", overview_px=32)
    network = spec.build().eval()
    lively(network, seed=1)
    benchmark: dict[str, Any] = runpy.run_path(str(BENCHMARK))
    with traceable():
        graphs = export_graphs(network, channels=1, policy=True, rule=GainMap())
        benchmark["export_cnn"](CNN, 1, 10, tmp_path)
    (tmp_path / "step.onnx").write_bytes(graphs.step)
    (tmp_path / "begin.onnx").write_bytes(graphs.begin or b"")
    (tmp_path / "model.json").write_text(json.dumps(describe(spec, network, threshold_nats=None, macs=[1, 2, 3])))
    host, session = nogs_onnx.Model(tmp_path), benchmark["session_of"](tmp_path / f"{CNN}.onnx")
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 1, 256, 256), dtype=np.uint8)
    times = benchmark["warm_ms"](
        {
            "three": lambda i: host.classify(images[i : i + 1]),
            "one": lambda i: host.classify(images[i : i + 1], np.inf),
            "cnn": lambda i: session.run(None, {"images": images[i : i + 1]}),
        },
        IMAGES,
    )
    one, three, cnn = (min(times[name]) for name in ("one", "three", "cnn"))
    assert one < three < cnn
    assert one < cnn / 3
