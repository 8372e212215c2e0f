#!/usr/bin/env bash
# Seconds from nothing to RAM's best validation loss, everything counted: posterior, bank, search and training.
#
#   bash experiments/end_to_end.sh CELEBA OUT [TASK...]      (CELEBA: a folder in the official layout)
#
# One run a label and size, one after the other, for they are timed; RAM and PS-NOGS train side by side, a core each.
# Hardware: two cores, no GPU, nothing else running; three to five minutes a run with its two seeds. The breakdown is
# in results.json under end_to_end, and in the report. docs/results/README.md has what was measured.
set -euo pipefail
celeba=$1 out=$2
shift 2
tasks=("$@")
((${#tasks[@]})) || tasks=(Smiling Male)

one() { # task, pixels, iterations of the posterior
  uv run nogs run --data "celeba:$celeba" --task "$1" --image-size "$2" --seeds 0,1 --iterations 10000 \
    --patience 3000 --posterior-iterations "$3" --out "$out/$1-$2" --resume
}

for task in "${tasks[@]}"; do
  one "$task" 64 1000
  one "$task" 128 2000
done
