"""Python scripts that run the pipeline: the example, and scripts without ``if __name__ == "__main__":``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tiny import driver, pictures, write_npz

EXAMPLE = Path(__file__).parents[1] / "examples" / "pipeline.py"


@pytest.mark.slow
def test_the_example_runs_on_a_folder_of_images(tmp_path: Path) -> None:
    for label, name in enumerate(("across", "down", "chess")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for place, image in enumerate(pictures(np.full(12, label), seed=label)):
            Image.fromarray(image).resize((70, 64 + place)).save(tmp_path / "images" / name / f"{place}.jpg")
    ended = driver().run(EXAMPLE, tmp_path / "images", tmp_path / "out", 20)
    assert ended.code == 0, ended.err
    *methods, prediction, report = ended.out.splitlines()
    assert [line.split(" ")[0] for line in methods] == ["ram", "ps-nogs"]
    assert json.loads(prediction)["probs"].keys() == {"across", "down", "chess"}
    assert report == f"open {tmp_path / 'out' / 'report.html'}"
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.slow
def test_workers_do_not_import_a_script_without_a_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        """
from functools import partial
from nogs.jobs import Job, run_jobs
from nogs.trainings import _no_progress
print("imported")
works = {name: partial(_no_progress, 1) for name in ("one", "other")}
run_jobs([Job(name, work, lambda: (0, ""), total=1) for name, work in works.items()], at_once=2)
print("done")
"""
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["imported", "done"]


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_script_without_a_guard_runs(tmp_path: Path, jobs: int) -> None:
    """Worker processes do not import the script again, so it needs no ``if __name__ == "__main__":``."""
    script = tmp_path / "script.py"
    script.write_text(
        f"""
from pathlib import Path
import nogs
run = nogs.run(
    nogs.Run(
        machine=nogs.Machine(out=Path({str(tmp_path / "out")!r}), device="cpu"),
        source=nogs.Source(data="npz:{write_npz(tmp_path / "images.npz")}"),
        geometry=nogs.Geometry(glimpse_size=6, stride=5, glimpses=2),
        annotate=30, seeds=(0, 1), methods=("ram",), iterations=20, posterior_iterations=20,
        stopping=False, jobs={jobs},
    )
)
print("done", run.path.name)
"""
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NOGS_CACHE": str(tmp_path / "cache")}
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, env=env)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["done out"]
    assert not (tmp_path / "out" / "stopping").exists()
