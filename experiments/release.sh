#!/usr/bin/env bash
# Build wheel and sdist, and try the wheel in an empty environment of each Python that is supported:
#   experiments/release.sh [PYTHON...]        default: 3.10 3.11 3.12 3.13
# Each environment runs docs/first-hour.md as it is written: train on a folder of photographs, predict, export, share. The export then
# runs in an environment that has numpy, Pillow and onnxruntime alone. KEEP=DIR keeps the environments. One takes some 6 GB with CUDA libraries.
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
    # The first hour of the documentation, every block as it is written.
    (cd "$out" && PATH="$bin:$PATH" MPLBACKEND=Agg "$bin/python" - "$root/docs/first-hour.md" >log 2>&1) <<'PYTHON'
import re
import subprocess
import sys
from pathlib import Path

script = ""
for language, block in re.findall(r"```(sh|python)\n(.*?)```", Path(sys.argv[1]).read_text(), flags=re.DOTALL):
    if language == "sh":
        subprocess.run(["bash", "-euo", "pipefail", "-c", block], check=True)
    else:  # later blocks use the names of earlier ones
        script += block
        subprocess.run([sys.executable, "-c", script], check=True)
PYTHON
    "$bin/nogs" predict "$out/shared/stripes" "$out/photos/across/0.jpg" --json >"$out/torch.json"
    "$bin/python" - "$out" <<'PYTHON'
import sys

import nogs

nogs.load_model(f"{sys.argv[1]}/shared/stripes").predict(f"{sys.argv[1]}/photos/across/0.jpg")
unneeded = {"timm", "torchvision", "torchmetrics", "sklearn", "scipy", "matplotlib", "onnxruntime"} & set(sys.modules)
assert not unneeded, unneeded
PYTHON
    uv venv --quiet --python "$version" "$work/light-$version"
    uv pip install --quiet --python "$light/python" numpy pillow onnxruntime
    "$light/python" "$out/exported/nogs_onnx.py" "$out/photos/across/0.jpg" >"$out/onnx.json"
    "$light/python" - "$out" <<'PYTHON'
import importlib.util
import json
import sys
from pathlib import Path

out = Path(sys.argv[1])
ours, theirs = (json.loads((out / f"{name}.json").read_text()) for name in ("torch", "onnx"))
steps = theirs["steps"]  # the export stops early by its threshold
assert ours["label"] == theirs["label"] and ours["glimpses"][:steps] == theirs["glimpses"], (ours, theirs)
assert not any(importlib.util.find_spec(name) for name in ("torch", "nogs"))
PYTHON
    echo "Python $version: full $(du -sh "$work/full-$version" | cut -f1), light $(du -sh "$work/light-$version" | cut -f1)"
  done
done
