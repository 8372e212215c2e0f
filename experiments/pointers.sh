#!/usr/bin/env bash
# A pointer to the label's place among d digits: learned gain maps that look ahead of the next glimpse, and those that do not.
#
#   bash experiments/pointers.sh DIGITS OUT      (DIGITS: an npz with images uint8 [N, 28, 28] and labels [N])
#
# Networks learn three places first, and go on to ten from these weights: of the digits at ten places one in ten is the
# label, so from nothing a classifier does not learn to read them in this time. docs/log.md has the failures. Hardware: two
# cores, no GPU, minutes. docs/results/README.md has what was measured with 10,000 digits. Killed, the same line goes on.
set -euo pipefail
digits=$1 out=$2
export OMP_NUM_THREADS=1

one() { # name, weight of the best gain after a glimpse
  local how=(--data "pointers:$digits" --method gain --glimpse-size 32 --stride 32 --gain-candidates 16 --exploration 0.3
    --foresight "$2" --schedule cosine --learning-rate 2e-3 --patience 0 --resume)
  uv run nogs train "${how[@]}" --image-size 64 --glimpses 3 --iterations 1000 --out "$out/$1-3"
  uv run nogs train "${how[@]}" --image-size 128 --glimpses 3 --iterations 600 --start "$out/$1-3" --out "$out/$1-10"
}

one foresight 0.9 &
one one-step 0 &
wait
uv run python experiments/pointers.py "$out/foresight-10" "$out/one-step-10"
