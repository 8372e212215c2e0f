"""ONNX graphs of one glimpse step, and the host loop that runs them without torch."""
