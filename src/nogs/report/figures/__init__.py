"""Figures of the report, one a file."""
