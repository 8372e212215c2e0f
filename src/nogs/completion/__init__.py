"""Completion of partly observed images: one protocol, and one file for each method."""
