#!/usr/bin/env bash
# A pointer to the label's place among three and among ten digits: learned gain maps that look ahead of the next glimpse.
#
#   bash experiments/pointers.sh DIGITS OUT      (DIGITS: an npz with images uint8 [N, 28, 28] and labels [N])
#
# Hardware: two cores, no GPU; minutes with three places, twenty with ten. docs/results/README.md has what was measured
# with 10,000 digits. Killed, the same line goes on.
set -euo pipefail
digits=$1 out=$2
export OMP_NUM_THREADS=1

one() { # name, weight of the best gain after a glimpse, other options
  uv run nogs train --data "pointers:$digits" --glimpse-size 32 --stride 32 --glimpses 3 --method gain --foresight "$2" \
    --exploration 0.3 --initial he --patience 0 --out "$out/$1" --resume "${@:3}"
}

three=(--image-size 64 --gain-candidates 4 --iterations 800 --schedule cosine --learning-rate 2e-3)
ten=(--image-size 128 --gain-candidates 16 --iterations 7000 --core attention --pretraining 0.4 --pretraining-glimpses 16)
one foresight 0.9 "${three[@]}" &
one one-step 0 "${three[@]}" &
wait
one ten 0.7 "${ten[@]}" &
one ten-seed1 0.7 "${ten[@]}" --seed 1 &
wait
uv run python experiments/pointers.py "$out/foresight" "$out/one-step" "$out/ten" "$out/ten-seed1"
