"""Glimpse sequences: the table, its files, and hand-crafted ones from annotated parts."""
