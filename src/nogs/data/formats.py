"""Recognise the format of a file that Pillow cannot read by its first bytes."""

from __future__ import annotations

from pathlib import Path

_BEGINNINGS = {
    b"\xff\x0a": "a JPEG XL image",
    b"\0\0\0\x0cJXL ": "a JPEG XL image",
    b"%PDF": "a PDF document",
    b"<?xml": "an XML document (SVG?)",
    b"<svg": "an SVG drawing",
    b"<!doctype html": "a web page, perhaps of a failed download",
    b"<html": "a web page, perhaps of a failed download",
    b"version https://git-lfs": "a pointer of Git LFS, whose content was not downloaded",
}
_BRANDS = {
    "a HEIC image": (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"),
    "an AVIF image": (b"avif", b"avis"),
}
"""Brands of the ISO base media file format (ISO/IEC 23008-12), at bytes 8 to 11."""


def format_of(file: Path) -> str | None:
    """Return a predicate about the file's format, as in "is empty"; None if the format is not recognised."""
    with file.open("rb") as stream:
        head = stream.read(32)
    if not head:
        return "is empty"
    for name, brands in _BRANDS.items():
        if head[4:8] == b"ftyp" and head[8:12] in brands:
            return f"is {name}, which Pillow cannot read: convert it to JPEG or PNG"
    for beginning, name in _BEGINNINGS.items():
        if head.lower().startswith(beginning.lower()):
            return f"is {name}, not an image that Pillow can read"
    return None
