"""Images from anywhere as one ImageSet: one source a file."""

from nogs.data.imageset import SPLITS, ImageSet, Split
from nogs.data.load import fingerprint, load

__all__ = ["SPLITS", "ImageSet", "Split", "fingerprint", "load"]
