"""Whole kinds of bad input to data sources: special files, archives from anyone, pixels of more than 8 bits."""

from __future__ import annotations

import io
import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nogs.config.groups import Source
from nogs.data import load
from nogs.data.frame import shown
from nogs.data.listing import Annotations, Arrays, Faults
from nogs.data.load import SOURCES, Kind
from nogs.errors import UserError
from sets import make_csv, make_folder, message, picture, pixels_of, save, save_npz

# --- special files


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the address of a socket may have 100 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [fifo, unix_socket, device])
@pytest.mark.parametrize("kind", ["folder", "csv", "the table itself"])
def test_a_special_file_never_hangs(tmp_path: Path, make: Callable[[Path], None], kind: str, cached: Path) -> None:
    if kind == "folder":
        spec, place = f"folder:{make_folder(tmp_path / 'set')}", tmp_path / "set" / "cat" / "z.png"
    else:
        table = make_csv(tmp_path)
        spec, place = f"csv:{table}", table if kind == "the table itself" else tmp_path / "0.png"
        place.unlink()
    make(place)
    assert str(place) in message(spec)


# --- archives


def member(archive: Path, name: str, content: bytes, **how: int) -> None:
    """Write an archive whose member ``name`` has this content; the other of x and y is sound."""
    sound = {"x.npy": np.stack([picture(i, channels=1) for i in range(8)]), "y.npy": np.arange(8) % 2}
    with zipfile.ZipFile(archive, "w") as out:
        for other, array in sound.items():
            if other != name:
                stream = io.BytesIO()
                np.save(stream, array)
                out.writestr(other, stream.getvalue())
        out.writestr(name, content, **how)


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"not an array", "x.npy: is not a plain array"),
        (b"", "x.npy: is not a plain array"),
        (header((10**13, 4, 4)), "its header claims 145 TiB, but it holds 0 bytes"),
        (header((8, 4, 4)) + bytes(100), "its header claims 128 bytes, but it holds 100 bytes"),
        (header((8, 4, 4), "|O") + bytes(128), "holds Python objects, which are not loaded"),
        (header((2**40, 2**40)), "its header claims"),
    ],
)
def test_a_member_that_is_no_array(tmp_path: Path, content: bytes, complaint: str) -> None:
    member(tmp_path / "a.npz", "x.npy", content)
    assert complaint in message(f"npz:{tmp_path / 'a.npz'}")


def test_an_unknown_compression_and_an_encrypted_member(tmp_path: Path) -> None:
    member(tmp_path / "a.npz", "x.npy", b"x" * 100, compress_type=zipfile.ZIP_BZIP2)
    assert "is compressed in another way than NumPy does" in message(f"npz:{tmp_path / 'a.npz'}")
    sound = bytearray(save_npz(tmp_path / "b.npz").read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := sound.find(signature, start + 1)) >= 0:
            sound[start + flags] |= 1
    (tmp_path / "b.npz").write_bytes(sound)
    assert "is encrypted" in message(f"npz:{tmp_path / 'b.npz'}")


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"y": np.int64(3)}, "y"),
        ({"y": np.zeros((8, 0), np.int64)}, "y"),
        ({"y": np.zeros((8, 2), np.int64), "names": np.array([b"\xff\xfe", b"a"])}, "is not UTF-8"),
        ({"x": np.uint8(3)}, "x"),
    ],
)
def test_arrays_without_rows_or_names(tmp_path: Path, arrays: dict[str, np.ndarray], complaint: str) -> None:
    assert complaint in message(f"npz:{save_npz(tmp_path / 'a.npz', **arrays)}")


# --- more than 8 bits a channel


def deep(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.mark.parametrize(
    ("suffix", "values", "limits"),
    [
        ("png", np.arange(36, dtype=np.uint16).reshape(6, 6) * 1000, (0.0, 35000.0)),
        ("tif", np.arange(36, dtype=np.uint16).reshape(6, 6) * 1000, (5000.0, 20000.0)),
        ("tif", np.linspace(-2, 2, 36, dtype=np.float32).reshape(6, 6), (-1.0, 1.0)),
    ],
)
def test_deep_pixels_need_a_range_and_are_mapped_by_it(
    tmp_path: Path, cached: Path, suffix: str, values: np.ndarray, limits: tuple[float, float]
) -> None:
    for i in range(12):
        deep(tmp_path / "set" / "ab"[i % 2] / f"{i}.{suffix}", values)
    assert "needs `range`" in message(f"folder:{tmp_path / 'set'}")
    images = load(Source(data=f"folder:{tmp_path / 'set'}", range=limits))
    low, high = limits
    expected = np.clip(np.round((values.astype(float) - low) / (high - low) * 255), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(pixels_of(images, f"a/0.{suffix}")[..., 0], expected)


@pytest.mark.parametrize("limits", [(1.0, 1.0), (2.0, 1.0), (0.0, float("nan")), (0.0, float("inf"))])
def test_a_range_is_two_ordered_numbers(limits: tuple[float, float]) -> None:
    with pytest.raises(UserError, match=r"^range=(.*the smaller first|nan: must be a number|inf: must be at most .*)$"):
        Source(range=limits)


# --- images that are not square


def test_fit_crop_pad_and_squash(tmp_path: Path, cached: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A 12 x 4 image in thirds of black, grey and white, as 4 x 4."""
    wide = np.repeat(np.repeat(np.array([[0, 128, 255]], np.uint8), 4, axis=0), 4, axis=1)
    for i in range(12):
        save(tmp_path / "set" / "ab"[i % 2] / f"{i}.png", np.stack([wide] * 3, axis=-1))
    spec = f"folder:{tmp_path / 'set'}"
    cropped = pixels_of(load(Source(data=spec, image_size=4)), "a/0.png")[..., 0]
    assert "removes more than a third of 12 of 12 images (67 % at most)" in capsys.readouterr().err
    assert (cropped == 128).all()
    padded = pixels_of(load(Source(data=spec, image_size=12, fit="pad")), "a/0.png")[..., 0]
    np.testing.assert_array_equal(padded[4:8], wide)
    assert not padded[:4].any()
    assert not padded[8:].any()
    squashed = pixels_of(load(Source(data=spec, image_size=4, fit="squash")), "a/0.png")[..., 0]
    assert squashed[0, 0] < squashed[0, 1] < squashed[0, 2] < squashed[0, 3]
    assert "removes" not in capsys.readouterr().err


def test_the_part_that_a_square_shows() -> None:
    assert shown(12, 4, "crop") == (4, 0, 8, 4)
    assert shown(12, 4, "pad") == (0, -4, 12, 8)
    assert shown(12, 4, "squash") == (0, 0, 12, 4)


# --- a source is a row


def test_a_new_source_is_a_reader_and_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stripes(path: Path, source: Source, faults: Faults) -> Arrays:
        images = np.zeros((30, 1, 8, 8), np.uint8)
        images[::2, :, ::2] = 255
        about = Annotations(tuple(map(str, range(30))), np.arange(30) % 2, ("across", "none"))
        return Arrays(images, about)

    monkeypatch.setitem(SOURCES, "stripes", Kind(stripes, "nothing"))
    images = load(Source(data="stripes"))
    assert images.classes == ("across", "none")
    assert torch.equal(images.labels, torch.arange(30) % 2)
    assert "did you mean stripes?" in message("strips")
