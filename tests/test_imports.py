"""Imports of a process that runs stages: torch's compiler and scipy.stats take seconds, and no stage needs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
HEAVY = ("torch._dynamo", "sympy", "scipy.stats", "sklearn", "matplotlib", "torchvision", "timm", "torchmetrics")
PROGRAM = """
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import nogs
import nogs.cli
import nogs.training.loop
import staged
from tiny import pictures, write_npz

folder = Path(sys.argv[1])
stages = staged.Stages(folder, write_npz(folder / "images.npz"))
stages.posterior(iterations=20)
stages.bank()
stages.search()

def kill(done, note):
    assert done < 40

nogs.training.loop.CHECKPOINT_SECONDS, staged.silent = 0.0, kill
try:
    stages.train("model", "ps-nogs", iterations=60)
except AssertionError:
    staged.silent = lambda done, note: None
stages.train("model", "ps-nogs", iterations=60, machine=stages.machine("model", resume=True))
Image.fromarray(pictures(np.zeros(1, int), seed=0)[0]).save(folder / "a.png")
stages.train("gain", "gain", iterations=20, sequences=None, geometry=nogs.Geometry(6, 5, 2, overview=4))
for name in ("model", "gain"):
    assert nogs.cli.main(["predict", "--json", str(folder / name), str(folder / "a.png")]) == 0
print("imported:", *(name for name in sys.argv[2:] if name in sys.modules), file=sys.stderr)
"""


def test_stages_and_prediction_import_no_compiler(tmp_path: Path) -> None:
    """A posterior, a bank, a search, a training that is resumed, one with an overview, and predictions."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path, *HEAVY], capture_output=True, text=True, cwd=HERE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "imported:"
