#!/usr/bin/env bash
# Smiling and Eyeglasses at 64 and at 128 pixels, 600 sequences each, RAM against PS-NOGS, three seeds.
#
#   bash experiments/celeba.sh CELEBA OUT      (CELEBA: a folder in the official layout)
#
# Two runs side by side, a core each. Not timed on a free machine; a training step takes about 15 ms at 64 pixels.
# Expected numbers: docs/results/README.md. Killed, the same line goes on.
set -euo pipefail
celeba=$1 out=$2
export OMP_NUM_THREADS=1

one() {
  uv run nogs run --data "celeba:$celeba" --task "$1" --image-size "$2" --jobs 1 --out "$out/$1-$2" \
    --iterations "$3" --patience "$4" --posterior-iterations "$5" --resume
  uv run nogs report --run "$out/$1-$2" --publishable
}

for task in Smiling Eyeglasses; do one "$task" 64 10000 4000 8000 & done
wait
for task in Smiling Eyeglasses; do one "$task" 128 4000 2000 7000 & done
wait
