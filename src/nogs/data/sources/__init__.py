"""Data sources: one file for each kind of `--data SPEC`."""
