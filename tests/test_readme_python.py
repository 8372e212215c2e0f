"""The Python examples of the README run as they are written: load, predict, plot; train; the estimator."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from staged import Stages
from tiny import driver, pictures
from typed import save

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
SMALL = """
import dataclasses
import nogs.pipeline

whole = nogs.pipeline.run

def run(config):
    print(config.source.image_size, config.geometry.glimpses, ",".join(config.methods))
    small = dict(annotate=10, seeds=(0,), iterations=10, posterior_iterations=10, stopping=False, jobs=1)
    whole(dataclasses.replace(config, **small, machine=dataclasses.replace(config.machine, device="cpu")))

nogs.pipeline.run = run
"""


def script(folder: Path, *parts: str) -> Path:
    file = folder / "script.py"
    file.write_text("\n".join(parts))
    return file


def test_the_first_example_loads_predicts_and_plots(stages: Stages, tmp_path: Path) -> None:
    """With a network and a photograph of another size under the names of the example."""
    shutil.copytree(stages.folder / "nogs-0", tmp_path / "runs" / "flowers" / "train" / "ps-nogs-seed0")
    save(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8), tmp_path / "photo.png")
    Image.open(tmp_path / "photo.png").save(tmp_path / "photo.jpg")
    before = "import matplotlib\nmatplotlib.use('Agg')\n"
    after = "assert 1 == len(answer.plot().images)\nassert answer == nogs.load_model(\n"
    after += "    'runs/flowers/train/ps-nogs-seed0').predict('photo.jpg')\n"
    ended = driver().run(script(tmp_path, before, EXAMPLES[0], after), cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    assert re.match(r"[012] 0\.\d+ \(Square\(row=\d+, column=\d+, side=\d+\), ", ended.out)


@pytest.mark.slow
def test_the_second_example_trains_the_network_of_the_first(tmp_path: Path) -> None:
    """With fewer iterations."""
    for number, image in enumerate(pictures(np.arange(60) % 2, seed=0)):
        save(image, tmp_path / "flowers" / ("rose", "tulip")[number % 2] / f"{number}.png")
    ended = driver().run(script(tmp_path, SMALL, EXAMPLES[1]), cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert ended.out == "64 5 ram,path,ps-nogs\n"
    assert (tmp_path / re.findall(r'load_model\("(.*?)"', EXAMPLES[0])[0] / "COMPLETE").exists()


@pytest.mark.slow
def test_the_third_example_learns_digits(tmp_path: Path) -> None:
    """With half of the iterations."""
    example = EXAMPLES[2].replace("iterations=600", "iterations=300, random_state=0")
    assert "iterations=300" in example
    ended = driver().run(script(tmp_path, example), cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    assert float(ended.out) > 0.7
