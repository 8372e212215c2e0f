#!/usr/bin/env bash
# Build wheel and sdist, and try the wheel in an empty environment of each Python that is supported:
#   experiments/release.sh [PYTHON...]        default: 3.10 3.11 3.12 3.13
# Each environment trains a tiny network, loads it, predicts, exports it, and shares it through a folder. The export then runs in an
# environment that has numpy, Pillow and onnxruntime alone. KEEP=DIR keeps the environments. One takes some 6 GB with CUDA libraries.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
work="${KEEP:-$(mktemp -d)}"
[ -n "${KEEP:-}" ] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work"
export NOGS_CACHE="$work/cache" OMP_NUM_THREADS=1
unset PYTHONPATH

rm -rf "$work/dist"
(cd "$root" && uv build --quiet --out-dir "$work/dist") # the wheel is built from the sdist
wheel="$(ls "$work"/dist/*.whl)"

cd "$work" # away from the checkout, so that nothing is imported from it
for python in "${@:-3.10 3.11 3.12 3.13}"; do
  for version in $python; do
    bin="$work/full-$version/bin" light="$work/light-$version/bin" out="$work/out-$version"
    rm -rf "$work/full-$version" "$work/light-$version" "$out"
    mkdir "$out"
    uv venv --quiet --python "$version" "$work/full-$version"
    uv pip install --quiet --python "$bin/python" "$wheel[onnx]"
    "$bin/nogs" --version
    "$bin/nogs" --help >"$out/help"
    "$bin/nogs" train --method gain --data digits --image-size 96 --glimpse-size 24 --stride 12 --glimpses 2 --overview 12 \
      --iterations 20 --validate-every 20 --out "$out/run" 2>"$out/log"
    "$bin/python" - "$out" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import nogs

out = Path(sys.argv[1])
image = np.random.default_rng(0).integers(0, 256, (90, 120), dtype=np.uint8)
Image.fromarray(image).save(out / "photo.png")
model = nogs.load_model(out / "run")
answer = model.predict(out / "photo.png")
assert answer.steps == 2 and answer == model.predict(image)
model.save_pretrained(out / "shared")
assert nogs.load_model(out / "shared").predict(image) == answer
trainings = {"timm", "torchvision", "torchmetrics", "sklearn", "scipy", "matplotlib", "onnxruntime"} & set(sys.modules)
assert not trainings, trainings
PYTHON
    "$bin/nogs" predict "$out/run" "$out/photo.png" --json >"$out/torch.json"
    "$bin/nogs" export "$out/run" --out "$out/exported" 2>>"$out/log" >&2
    uv venv --quiet --python "$version" "$work/light-$version"
    uv pip install --quiet --python "$light/python" numpy pillow onnxruntime
    "$light/python" "$out/exported/nogs_onnx.py" "$out/photo.png" >"$out/onnx.json"
    "$light/python" - "$out" <<'PYTHON'
import importlib.util
import json
import sys
from pathlib import Path

out = Path(sys.argv[1])
ours, theirs = (json.loads((out / f"{name}.json").read_text()) for name in ("torch", "onnx"))
assert ours["label"] == theirs["label"] and ours["glimpses"] == theirs["glimpses"], (ours, theirs)
assert not any(importlib.util.find_spec(name) for name in ("torch", "nogs"))
PYTHON
    echo "Python $version: full $(du -sh "$work/full-$version" | cut -f1), light $(du -sh "$work/light-$version" | cut -f1)"
  done
done
