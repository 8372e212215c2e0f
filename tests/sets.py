"""Small artificial sets of images in every layout that `--data` reads."""

import numpy as np
import pytest
from PIL import Image

from nogs.config.groups import Source
from nogs.data import ImageSet, load
from nogs.errors import UserError

ATTRIBUTES = ("Smiling", "Young", "Bald")


def picture(seed, side=6, channels=3):
    shape = (side, side, 3) if channels == 3 else (side, side)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def make_folder(root, classes=("cat", "dog"), each=6, **kinds):
    for c, name in enumerate(classes):
        for i in range(each):
            save(root / name / f"{i}.png", picture(100 * c + i, **kinds))
    return root


def make_csv(root, header="file,label", rows=None):
    for i in range(6):
        save(root / f"{i}.png", picture(i))
    lines = [f"{i}.png,{i % 2}" for i in range(6)] if rows is None else rows
    (root / "table.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return root / "table.csv"


def make_celeba(root, *, people=12, partition=lambda person: int(person >= 6)):
    """Write a set with two images of each person. Each image has one colour, and Young is the parity of its index."""
    rows, parts, identities = [], [], []
    for i in range(2 * people):
        name, person = f"{i + 1:06d}.jpg", i // 2
        save(root / "img_align_celeba" / name, np.full((22, 18, 3), 10 * i, dtype=np.uint8))
        rows.append(f"{name} {'1' if person % 3 else '-1'}  {'1' if i % 2 else '-1'} -1")
        parts.append(f"{name} {partition(person)}")
        identities.append(f"{name} {person}")
    (root / "list_attr_celeba.txt").write_text("\n".join([str(2 * people), " ".join(ATTRIBUTES), *rows]))
    (root / "list_eval_partition.txt").write_text("\n".join(parts))
    (root / "identity_CelebA.txt").write_text("\n".join(identities))
    return root


def save_npz(path, **arrays):
    """Save arrays to an archive, with ``x`` and ``y`` of eight images by default. None leaves an array out."""
    x = np.stack([picture(i, channels=1) for i in range(8)])
    defaults = {"x": x, "y": np.arange(8) % 2}
    np.savez(path, **{k: v for k, v in {**defaults, **arrays}.items() if v is not None})
    return path


def pixels_of(images: ImageSet, name: str) -> np.ndarray:
    """Return the pixels [H, H, c] of one image, in the layout of Pillow."""
    return images.images[images.names.index(name)].permute(1, 2, 0).numpy()


def label_of(images: ImageSet, name: str):
    return images.labels[images.names.index(name)].tolist()


def message(spec, **options) -> str:
    with pytest.raises(UserError) as caught:
        load(Source(data=spec, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)
