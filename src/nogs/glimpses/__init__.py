"""Glimpses: the grid of locations, the fovea that crops them, and their embedding."""
