"""Glimpse sequences: their table, file formats, and sequences that follow annotated parts."""
