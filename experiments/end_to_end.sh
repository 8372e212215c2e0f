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

for px in 64 128; do
  for task in "${tasks[@]}"; do
    uv run nogs run --data "celeba:$celeba" --task "$task" --image-size "$px" --seeds 0,1 --iterations 10000 \
      --patience 3000 --posterior-iterations 1000 --out "$out/$task-$px" --resume
  done
done
