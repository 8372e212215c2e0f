"""8-bit versions of exported graphs, by dynamic quantisation (Jacob et al. 2018, *Quantization and Training*).

Weights of matrix products are rounded to 8-bit integers, one scale for each column; their inputs are rounded while the
graph runs, by the range of each. This needs no calibration images. Convolutions stay in float32: they have a tenth of
the weights, and onnxruntime has no fast integer kernels for the small ones.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from nogs.export.interpolation import PRODUCTS

QUANTISED = ["Gemm", "MatMul"]
"""ONNX operators whose weights are rounded."""


def quantised(model: bytes) -> bytes:
    """Return the ONNX model with 8-bit matrix products."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # onnxruntime is an extra
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        given, prepared, small = (Path(folder) / name for name in ("given.onnx", "prepared.onnx", "small.onnx"))
        given.write_bytes(model)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantize_dynamic(
            prepared,
            small,
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=QUANTISED,
            nodes_to_exclude=[*PRODUCTS],
        )
        return small.read_bytes()
