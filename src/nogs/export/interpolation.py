"""Interpolation on a grid of places as two matrix products, which onnxruntime computes five times faster.

`grid_sample` reads each place on its own. The centres of a grid of cells are all pairs of the same rows and columns, so
the map M between the pixels of an overview is W M Wᵀ, with two entries that are not 0 in each row of W.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

PRODUCTS = ("interpolated_rows", "interpolated_columns")
"""Names of the two nodes, which 8-bit versions leave as they are."""


def separate(model: Any) -> None:
    """Replace the interpolation in an ONNX model, whose places are constant, in place; leave other models alone.

    ``model``: with the shapes of its intermediate values, of which the last two are fixed.
    """
    from onnx import helper, numpy_helper  # an extra

    graph = model.graph
    made_by = {output: node for node in graph.node for output in node.output}
    constants = {constant.name: constant for constant in graph.initializer}
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.value_info}
    for place, node in enumerate(graph.node):
        expanded = made_by.get(node.input[1]) if node.op_type == "GridSample" else None
        if expanded is None or expanded.op_type != "Expand" or expanded.input[0] not in constants:
            continue
        points = numpy_helper.to_array(constants[expanded.input[0]]).reshape(-1, *shapes[node.output[0]][2:], 2)
        height, width = shapes[node.input[0]][2:]
        columns, rows = points[0, 0, :, 0], points[0, :, 0, 1]
        if height != width or not np.array_equal(points[0], np.stack(np.meshgrid(columns, rows), -1)):
            continue
        for name, along in zip(PRODUCTS, (rows, columns), strict=True):
            weights = weights_along(torch.tensor(along), width).numpy()
            graph.initializer.append(
                numpy_helper.from_array(
                    np.ascontiguousarray(weights if along is rows else weights.T), f"{name}_weights"
                )
            )
        between = f"{PRODUCTS[0]}_of_the_map"
        first = helper.make_node("MatMul", [f"{PRODUCTS[0]}_weights", node.input[0]], [between], name=PRODUCTS[0])
        second = helper.make_node("MatMul", [between, f"{PRODUCTS[1]}_weights"], [node.output[0]], name=PRODUCTS[1])
        graph.node.remove(node)
        graph.node.insert(place, second)
        graph.node.insert(place, first)
        return


def weights_along(places: Float[Tensor, " s"], pixels: int) -> Float[Tensor, "s v"]:
    """Return W, the weight of each of ``pixels`` pixels at each place in [-1, 1], as the interpolation has it."""
    each = torch.eye(pixels)[:, None, :, None]  # image v is 1 at pixel v of its only column
    points = torch.stack((torch.zeros_like(places), places), dim=-1)[None, :, None].expand(pixels, -1, -1, -1)
    return F.grid_sample(each, points, padding_mode="border", align_corners=False)[:, 0, :, 0].T
