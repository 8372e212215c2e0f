"""An image in OME-Zarr (NGFF 0.4 on Zarr v2, 0.5 on Zarr v3) of which squares are read: only the chunks they touch.

All metadata is checked before zarr opens an array: zarr would decode objects by pickle, which may run any code, and
allocate chunks of any size. Needs zarr (`nogs[zarr]`).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import zarr
from jaxtyping import UInt8
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from nogs.config.groups import Range
from nogs.data.decode import to_eight_bits
from nogs.data.files import check_regular, folder_state
from nogs.data.tiled.large import DIGEST_BYTES, LargeImage, State
from nogs.data.tiled.levels import LARGEST_TILE_PX, check_depth, check_reduction, tiles_across
from nogs.errors import UserError

LARGEST_CHUNK_BYTES = 2**28
"""Most bytes of a decoded chunk. 8,192 x 8,192 pixels of RGB have fewer."""
MOST_IN_SHARD = 2**20
"""Most chunks of a shard, whose index is read whole."""
METADATA_BYTES = 2**24
"""Most bytes of a file of metadata."""
V2, V3 = ".zattrs", "zarr.json"
"""Files that have the attributes of a group in Zarr v2 and v3."""
_CODECS = {
    *("blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd", "shuffle"),
    *("bytes", "crc32", "crc32c", "transpose", "sharding_indexed"),
}
"""Codecs that decode numbers and nothing else. Zarr knows more of them, pickle among others."""
_NUMBER = re.compile(r"[<>|][uif][1248]|u?int(8|16|32|64)|float(16|32|64)")


class Level(NamedTuple):
    """One size of the picture, in pixels, and its array. ``axes``: the names of the array's axes, as in "tczyx"."""

    width: int
    height: int
    tile_width: int
    tile_height: int
    channels: int
    axes: str
    path: str
    array: Any


class OmeZarr(LargeImage):
    """A folder in OME-Zarr. Its metadata is read when it is first needed. A chunk without a file has the fill value."""

    as_pyramid = "save it with more levels (`multiscales`)"
    _levels: tuple[Level, ...] | None = None

    @property
    def levels(self) -> tuple[Level, ...]:
        if self._levels is None:
            with self._shared.parsing:
                self._levels = self._levels or tuple(self._read_levels())
        return self._levels

    @property
    def channels(self) -> int:
        return self.levels[0].channels

    @property
    def file_bytes(self) -> int:
        return self.known().file_bytes

    def known(self) -> State:
        """Return size, time of change and digest: of the sizes of all files, and of the bytes of the smallest level."""
        if self.size_and_time is None or self._digest is None:
            try:
                found = folder_state(self.path)
                digest, left = hashlib.blake2b(found.digest.encode(), digest_size=16), DIGEST_BYTES
                for file in sorted((self.path / self.levels[-1].path).rglob("*")):
                    if file.is_file() and left > 0:
                        with file.open("rb") as stream:
                            stored = stream.read(left)
                        digest.update(stored)
                        left -= len(stored)
            except OSError as error:
                raise UserError(f"cannot be read: {error.strerror}") from error
            self.size_and_time, self._digest = (found.file_bytes, found.changed_ns), digest.hexdigest()
        return State(*self.size_and_time, self._digest)

    def close(self) -> None:
        """No file stays open."""

    def tile(self, number: int, index: int) -> UInt8[np.ndarray, "h w c"]:
        level = self.levels[number]
        row, column = divmod(index, tiles_across(level))
        part = {
            "y": slice(row * level.tile_height, (row + 1) * level.tile_height),
            "x": slice(column * level.tile_width, (column + 1) * level.tile_width),
            "c": slice(None),
        }
        values = np.asarray(level.array[tuple(part.get(axis, 0) for axis in level.axes)])
        left = [axis for axis in level.axes if axis in part]
        values = values.transpose([left.index(axis) for axis in "yxc" if axis in left])
        values = values if "c" in left else values[..., None]
        if values.dtype != np.uint8:
            assert self._range is not None  # `check_depth` has seen to it
            values = to_eight_bits(values, self._range)
        return np.ascontiguousarray(values)

    def _read_levels(self) -> Iterator[Level]:
        """Yield the levels that the metadata names. Raises UserError if one of them cannot be read."""
        version, attributes = self._attributes()
        try:
            described = attributes["multiscales"][0]
            axes = "".join(axis["name"] for axis in described["axes"])
            paths = [dataset["path"] for dataset in described["datasets"]]
            sound = len(axes) == len(described["axes"]) and bool(paths) and all(isinstance(path, str) for path in paths)
        except (KeyError, IndexError, TypeError):
            sound = False
        if not sound:
            raise UserError(
                "has no `multiscales` with axes and datasets: it is no OME-Zarr image of version 0.4 or 0.5"
            )
        if len(set(axes)) < len(axes) or not {"y", "x"} <= set(axes) <= set("tczyx"):
            raise UserError(f"has the axes {axes!r}: convert it to y and x, with or without c, and t and z of size 1")
        store, first, dtype = _Counted(self), None, None
        for path in paths:
            level = self._level(path, version, axes, store)
            first, dtype = first or level, dtype or level.array.dtype
            if (level.channels, level.array.dtype) != (first.channels, dtype):
                raise UserError(f"level {path!r} has other channels than the image: save the pyramid anew")
            check_reduction(f"level {path!r}", level[:2], first[:2])
            yield level

    def _attributes(self) -> tuple[int, Any]:
        """Return the version of the Zarr format, and the attributes that describe the image."""
        try:
            if (content := self._json(V3)) is not None:
                return 3, content["attributes"]["ome"]
            if (content := self._json(V2)) is not None:
                return 2, content
        except (KeyError, TypeError):
            raise UserError(f"{V3} has no attributes `ome`: it is no OME-Zarr image of version 0.5") from None
        raise UserError(f"has neither {V3} nor {V2}: it is no OME-Zarr image, or lacks a part")

    def _json(self, name: str) -> Any:
        """Return the object in a file of metadata, None if the file does not exist."""
        file = self.path / name
        try:
            check_regular(file)
            with file.open("rb") as stream:
                content = stream.read(METADATA_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UserError(f"{name} cannot be read: {error.strerror}") from error
        self.bytes_read += len(content)
        try:
            if len(content) > METADATA_BYTES:
                raise ValueError("it is too long")
            parsed = json.loads(content)
            if not isinstance(parsed, dict):
                raise ValueError("it is no object")
        except (ValueError, RecursionError) as error:
            raise UserError(f"{name} is damaged: {str(error).partition(chr(10))[0]}") from error
        return parsed

    def _level(self, path: str, version: int, axes: str, store: _Counted) -> Level:
        """Return the level that is the array at ``path``, whose metadata is checked before zarr opens it."""
        if re.search(r"[\\:\0]", path) or not path or {"", ".."} & set(path.split("/")):
            raise UserError(f"names a level {path!r}, which is outside of it: give a path below the folder")
        metadata = self._json(f"{path}/{V3 if version == 3 else '.zarray'}")
        if metadata is None:
            raise UserError(f"has no level {path!r}, which its metadata names")
        try:
            form = _form_v3(metadata) if version == 3 else _form_v2(metadata)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"level {path!r} has damaged metadata ({type(error).__name__}: {error})") from error
        sizes = _check(f"level {path!r}", form, axes, self._range)
        try:
            array: Any = zarr.open_array(store=store, path=path, mode="r", zarr_format=3 if version == 3 else 2)
        except Exception as error:  # zarr raises many kinds of errors for damaged metadata
            raise UserError(f"level {path!r} cannot be opened: {str(error).partition(chr(10))[0]}") from error
        chunk = dict(zip(axes, form.chunks[-1], strict=True))
        return Level(sizes["x"], sizes["y"], chunk["x"], chunk["y"], sizes.get("c", 1), axes, path, array)


class _Form(NamedTuple):
    """What is checked of an array. ``chunks``: of shards, if there are any, and of the chunks in them."""

    shape: list[int]
    chunks: list[list[int]]
    dtype: str
    codecs: list[str]


def _form_v2(metadata: Mapping[str, Any]) -> _Form:
    codecs = [*(metadata.get("filters") or ()), *([metadata["compressor"]] if metadata.get("compressor") else ())]
    return _Form(metadata["shape"], [metadata["chunks"]], metadata["dtype"], [str(codec["id"]) for codec in codecs])


def _form_v3(metadata: Mapping[str, Any]) -> _Form:
    if metadata["chunk_grid"]["name"] != "regular":
        raise ValueError("its chunks are not regular")
    chunks, names = [metadata["chunk_grid"]["configuration"]["chunk_shape"]], list[str]()
    codecs = list(metadata["codecs"])
    while codecs:
        codec = codecs.pop()
        name = codec if isinstance(codec, str) else str(codec["name"])
        names.append(name.removeprefix("numcodecs."))
        if name == "sharding_indexed":
            how = codec["configuration"]
            chunks.append(how["chunk_shape"])
            codecs += [*how["codecs"], *how.get("index_codecs", ())]
            if len(chunks) > 2:
                raise ValueError("it has shards in shards")
    return _Form(metadata["shape"], chunks, metadata["data_type"], names)


def _check(name: str, form: _Form, axes: str, range: Range | None) -> dict[str, int]:
    """Return the size of each axis. Raises UserError if an array cannot be read, or should not be."""
    for lengths in (form.shape, *form.chunks):
        if not isinstance(lengths, list) or len(lengths) != len(axes):
            raise UserError(f"{name} has not the axes {axes!r} that the image has: save it anew")
        if not all(type(length) is int and length > 0 for length in lengths):
            raise UserError(f"{name} says a size of {_by(lengths)}: save it anew")
    if not isinstance(form.dtype, str) or not _NUMBER.fullmatch(form.dtype):
        raise UserError(f"{name} has pixels of type {form.dtype!s:.40}, which are not read: convert it to uint8")
    if unknown := [codec for codec in form.codecs if codec not in _CODECS]:
        raise UserError(f"{name} is stored by the codec {unknown[0]:.40}, which is not read: use blosc or zstd")
    dtype = np.dtype(form.dtype)
    check_depth(dtype, range)
    sizes, chunk = (dict(zip(axes, lengths, strict=True)) for lengths in (form.shape, form.chunks[-1]))
    for axis in "tz":
        if sizes.get(axis, 1) > 1:
            raise UserError(f"{name} has {sizes[axis]} planes along {axis}: save one of them as an image")
    if sizes.get("c", 1) not in (1, 3):
        raise UserError(f"{name} has {sizes['c']} channels: save it with 1 (grey) or 3 (RGB)")
    if (
        max(chunk["x"], chunk["y"]) > LARGEST_TILE_PX
        or math.prod(chunk.values()) * dtype.itemsize > LARGEST_CHUNK_BYTES
    ):
        raise UserError(f"{name} has chunks of {_by(form.chunks[-1])} pixels: save it with smaller ones")
    if math.prod(form.chunks[0]) > MOST_IN_SHARD * math.prod(chunk.values()):
        raise UserError(f"{name} has shards of {_by(form.chunks[0])} pixels: save it with smaller ones")
    return sizes


def _by(lengths: Sequence[int]) -> str:
    return "x".join(f"{length!s:.20}" for length in lengths)


class _Counted(LocalStore):
    """The files of an image, which adds the bytes that are read to its count."""

    def __init__(self, image: OmeZarr) -> None:
        super().__init__(image.path, read_only=True)
        self._image = image

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        file = self.root / key
        if file.exists():  # a missing chunk has the fill value
            check_regular(file)
        stored = await super().get(key, prototype, byte_range)
        if stored is not None:
            self._image.bytes_read += len(stored)
            if not len(stored):  # zarr reads an empty shard as one of fill values
                raise ValueError("its file is empty or cut")
        return stored
