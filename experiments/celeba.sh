#!/usr/bin/env bash
# Smiling and Eyeglasses at 64 and at 128 pixels, 600 sequences each, RAM against PS-NOGS, three seeds.
#
#   bash experiments/celeba.sh CELEBA OUT      (CELEBA: a folder in the official layout)
#
# Two runs side by side, a core each: about half an hour a run at 64 pixels, 30 to 41 minutes at 128.
# Expected numbers: docs/results/README.md. Killed, the same line goes on.
set -euo pipefail
celeba=$1 out=$2
export OMP_NUM_THREADS=1

one() { # task, pixels, iterations of the posterior, the rest as flags
  uv run nogs run --data "celeba:$celeba" --task "$1" --image-size "$2" --jobs 1 --out "$out/$1-$2" --resume \
    --iterations 10000 --patience 4000 --posterior-iterations "$3" "${@:4}"
  uv run nogs report --run "$out/$1-$2" --publishable
}

for task in Smiling Eyeglasses; do one "$task" 64 8000 & done
wait
# Measured before pooling was the default.
for task in Smiling Eyeglasses; do one "$task" 128 7000 --pooling 0 & done
wait
