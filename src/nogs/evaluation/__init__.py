"""Scores, costs, uncertainty and example designs of trained networks."""
