"""Tiled TIFF and OME-Zarr images of any size, read a square at a time; synthetic slides are written as TIFF."""
