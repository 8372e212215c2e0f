"""Decoded images are kept, never when they are not whole; and a fingerprint sees every part."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nogs.config.groups import Source
from nogs.data import cache, fingerprint, load
from nogs.data.load import assemble
from nogs.data.sources.digits import draw
from sets import make_folder, picture, pixels_of, save

pytestmark = pytest.mark.usefixtures("cached")


def test_second_load_is_mapped_from_the_cache_and_equal(tmp_path, cached, monkeypatch):
    spec = f"folder:{make_folder(tmp_path / 'set')}"
    first = load(Source(data=spec))
    assert [path.suffix for path in cached.iterdir()] == [".npy"]
    monkeypatch.setattr(cache, "survey", None)  # decoding again would fail
    second = load(Source(data=spec))
    assert fingerprint(first) == fingerprint(second)
    second.images[0] = 0  # copy on write: allowed, and never reaches the file
    assert fingerprint(load(Source(data=spec))) == fingerprint(first)


def test_cache_knows_changed_files_and_sizes(tmp_path, cached):
    root = make_folder(tmp_path / "set")
    load(Source(data=f"folder:{root}"))
    save(root / "cat" / "0.png", picture(999))
    images = load(Source(data=f"folder:{root}"))
    np.testing.assert_array_equal(pixels_of(images, "cat/0.png"), picture(999))
    assert load(Source(data=f"folder:{root}", image_size=4)).images.shape[2] == 4
    assert len(list(cached.glob("*.npy"))) == 3


@pytest.mark.parametrize("harm", ["truncated", "empty", "rubbish", "fewer"])
def test_damaged_cache_is_made_again(tmp_path, cached, harm):
    spec = f"folder:{make_folder(tmp_path / 'set')}"
    first = load(Source(data=spec))
    (place,) = cached.glob("*.npy")
    whole = place.read_bytes()
    if harm == "fewer":
        place.unlink()
        np.save(place, first.images[:5].numpy())
    else:
        cut_off = {"truncated": whole[:-1], "empty": b"", "rubbish": b"rubbish" * 50}[harm]
        place.unlink()
        place.write_bytes(cut_off)
    assert fingerprint(load(Source(data=spec))) == fingerprint(first)
    assert place.read_bytes() == whole


def test_killed_while_decoding_leaves_nothing_that_is_taken_as_whole(tmp_path, cached, monkeypatch):
    spec = f"folder:{make_folder(tmp_path / 'set')}"

    def dies(files, frame, boxes):
        yield np.zeros((3, 6, 6), dtype=np.uint8)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "decode", dies)
        with pytest.raises(KeyboardInterrupt):
            load(Source(data=spec))
    assert list(cached.iterdir()) == []
    old = cached / "killed.1.partial"
    old.write_bytes(b"half")
    os.utime(old, (0, 0))
    np.testing.assert_array_equal(pixels_of(load(Source(data=spec)), "cat/0.png"), picture(0))
    assert not old.exists()


def test_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    spec = f"folder:{make_folder(tmp_path / 'set')}"
    with_cache = fingerprint(load(Source(data=spec)))
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("NOGS_CACHE", str(tmp_path / "a file" / "below"))
    assert fingerprint(load(Source(data=spec))) == with_cache


def test_cache_directory(monkeypatch):
    monkeypatch.delenv("NOGS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache.directory() == Path("/x/nogs")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert cache.directory() == Path("/h/.cache/nogs")


def test_fingerprint_sees_every_part():
    images = assemble(draw(50, 0, canvases=(40, 20, 20)), Source())
    prints = {fingerprint(images)}
    for name in ("images", "labels", "split"):
        other = getattr(images, name).clone()
        other.view(-1)[-1] ^= 1
        prints.add(fingerprint(replace(images, **{name: other})))
    prints.add(fingerprint(replace(images, classes=tuple("abcdefghij"))))
    assert len(prints) == 5
