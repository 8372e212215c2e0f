"""Adaptive stopping: rules, the heads that they read, and curves of accuracy over mean glimpses."""
