"""Completions of what was not seen: one method a file, one protocol."""
