"""Tiled TIFF files of any size: read a square at a time, as images of a set, and written as synthetic slides."""
