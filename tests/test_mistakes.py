"""Every mistake in the images, the glimpses or a name is answered in one line, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tiny import GEOMETRY, driver, pictures, write_npz
from typed import QUICK, folder, good, refused, save, table, typed


def empty_folder(place: Path) -> tuple[list[object], list[str]]:
    (place / "empty").mkdir()
    return ["--data", f"folder:{place / 'empty'}"], [str(place / "empty"), "give each class a folder of images"]


def folder_without_images(place: Path) -> tuple[list[object], list[str]]:
    (place / "set" / "cats").mkdir(parents=True)
    return ["--data", f"folder:{place / 'set'}"], ["cats has no images", "fill or remove it"]


def class_of_one(place: Path) -> tuple[list[object], list[str]]:
    root = folder(place / "set", {"cats": 5, "dogs": 1})
    return ["--data", f"folder:{root}"], ["class dogs has 1 image", "give it three or more"]


def one_class(place: Path) -> tuple[list[object], list[str]]:
    return ["--data", f"folder:{folder(place / 'set', {'cats': 5})}"], ["only one class, cats", "give two or more"]


def truncated_jpeg(place: Path) -> tuple[list[object], list[str]]:
    file = folder(place / "set", {"cats": 5, "dogs": 5}, "jpg") / "dogs" / "3.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    return ["--data", f"folder:{place / 'set'}"], [str(file), "runcated", "--skip-bad"]


def not_an_image(place: Path) -> tuple[list[object], list[str]]:
    file = folder(place / "set", {"cats": 5, "dogs": 5}) / "cats" / "notes.txt"
    file.write_text("mine")
    return ["--data", f"folder:{place / 'set'}"], [str(file), "not an image", "--skip-bad"]


def sizes_that_differ(place: Path) -> tuple[list[object], list[str]]:
    root = folder(place / "set", {"cats": 5, "dogs": 5})
    file = save(np.zeros((20, 30), dtype=np.uint8), root / "dogs" / "wide.png")
    return ["--data", f"folder:{root}"], [str(file), "30x20", "16x16", "--image-size"]


def missing_file(place: Path) -> tuple[list[object], list[str]]:
    file = table(place / "set", ["a/9.png,a"])
    return ["--data", f"csv:{file}"], [f"{file} line 3", "a/9.png", "--skip-bad"]


def nan_label(place: Path) -> tuple[list[object], list[str]]:
    file = table(place / "set", ["a/4.png,NaN"])
    return ["--data", f"csv:{file}"], [f"{file} line 3", "column label", "'NaN'", "--skip-bad"]


def nan_in_an_archive(place: Path) -> tuple[list[object], list[str]]:
    y = np.arange(30) % 3.0
    y[7] = np.nan
    np.savez(place / "nan.npz", x=pictures(np.zeros(30, dtype=int), 0), y=y)
    return ["--data", f"npz:{place / 'nan.npz'}"], ["nan.npz row 7", "nan", "--skip-bad"]


def pickled_archive(place: Path) -> tuple[list[object], list[str]]:
    np.savez(place / "objects.npz", x=np.array([{}, {}], dtype=object), y=np.zeros(2))
    return ["--data", f"npz:{place / 'objects.npz'}"], ["objects.npz", "np.savez(path, x=x, y=y)"]


def no_such_place(place: Path) -> tuple[list[object], list[str]]:
    return ["--data", f"folder:{place / 'nowhere'}"], [f"{place / 'nowhere'} does not exist"]


def no_such_source(place: Path) -> tuple[list[object], list[str]]:
    return ["--data", f"foldr:{place}"], ["foldr", f"did you mean folder:{place}?"]


def large_glimpse(place: Path) -> tuple[list[object], list[str]]:
    return [*good(place), "--glimpse-size", 17], ["--glimpse-size 17 exceeds --image-size 16", "choose at most 16"]


def many_glimpses(place: Path) -> tuple[list[object], list[str]]:
    return [*good(place), "--glimpses", 10], ["--glimpses 10", "9 locations", "choose 1 to 9"]


def no_glimpses(place: Path) -> tuple[list[object], list[str]]:
    return [*good(place), "--glimpses", 0], ["--glimpses 0", "must be at least 1"]


def no_such_task(place: Path) -> tuple[list[object], list[str]]:
    npz = write_npz(place / "labels.npz", multilabel=True)
    return ["--data", f"npz:{npz}", "--task", "bald"], ["--task bald", "choose one of striped, across"]


def no_task(place: Path) -> tuple[list[object], list[str]]:
    return ["--data", f"npz:{write_npz(place / 'labels.npz', multilabel=True)}"], ["--task", "striped, across"]


def task_of_one_label(place: Path) -> tuple[list[object], list[str]]:
    return [*good(place), "--task", "bald"], ["--task bald", "one label only"]


def no_such_method(place: Path) -> tuple[list[object], list[str]]:
    return [*good(place), "--methods", "ram,rum"], ["--methods rum", "choose among ram, ps-nogs"]


def no_such_device(place: Path) -> tuple[list[object], list[str]]:
    return [*good(place), "--device", "abacus"], ["--device abacus", "choose auto, cpu, cuda or mps"]


def a_method_twice(place: Path) -> tuple[list[object], list[str]]:
    return [*good(place), "--methods", "ram,ram"], ["--methods ram,ram", "each once"]


def a_seed_twice(place: Path) -> tuple[list[object], list[str]]:
    return [*good(place), "--seeds", "0,1,0"], ["--seeds 0,1,0", "each once"]


@pytest.mark.parametrize(
    "mistake",
    [
        empty_folder,
        folder_without_images,
        class_of_one,
        one_class,
        truncated_jpeg,
        not_an_image,
        sizes_that_differ,
        missing_file,
        nan_label,
        nan_in_an_archive,
        pickled_archive,
        no_such_place,
        no_such_source,
        large_glimpse,
        many_glimpses,
        no_glimpses,
        no_such_task,
        no_task,
        task_of_one_label,
        no_such_method,
        no_such_device,
        a_method_twice,
        a_seed_twice,
    ],
    ids=lambda mistake: mistake.__name__,
)
def test_a_mistake_is_answered_in_one_line_and_leaves_nothing(
    tmp_path: Path, mistake: Callable[[Path], tuple[list[object], list[str]]]
) -> None:
    args, says = mistake(tmp_path)
    before = set(tmp_path.rglob("*"))
    geometry = [] if "--glimpses" in args or "--glimpse-size" in args else GEOMETRY
    small = ("--glimpse-size", 6, "--stride", 5) if "--glimpses" in args else ()
    refused(driver().run("run", *geometry, *small, *args, "--out", tmp_path / "out"), *says)
    assert set(tmp_path.rglob("*")) == before


def test_the_installed_command_prints_the_same_error(tmp_path: Path) -> None:
    args, says = class_of_one(tmp_path)
    refused(typed("fit-posterior", *args, "--out", tmp_path / "out"), *says)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["fit-posterior", "build-bank", "train"])
def test_a_stage_with_a_mistake_leaves_nothing_and_can_be_typed_again(tmp_path: Path, stage: str) -> None:
    args, says = truncated_jpeg(tmp_path)
    quick = ("--components", 4) if stage == "build-bank" else QUICK
    refused(driver().run(stage, *args, *quick, "--out", tmp_path / "out"), *says)
    assert not (tmp_path / "out").exists()
    ended = driver().run(stage, *args, "--skip-bad", *quick, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert "3.jpg" in ended.err  # what was left out is listed
