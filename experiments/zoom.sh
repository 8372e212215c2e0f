#!/usr/bin/env bash
# What choosing a zoom level is worth where a digit has one of three sizes: levels, concentric scales, and one size.
#
#   bash experiments/zoom.sh DIGITS OUT      (DIGITS: an npz with images uint8 [N, 28, 28] and labels [N])
#
# Hardware: two cores, no GPU, a quarter of an hour. docs/log.md has what was measured. Killed, the same line goes on.
set -euo pipefail
digits=$1 out=$2
export OMP_NUM_THREADS=1
mkdir -p "$out"
[ -f "$out/sizes.npz" ] || uv run python experiments/zoom.py "$digits" "$out/sizes.npz"

one() { # name, seed, options
  uv run nogs train --data "npz:$out/sizes.npz" --glimpses 3 --overview 28 --method gain --iterations 3000 \
    --schedule cosine --learning-rate 2e-3 --patience 0 --seed "$2" --out "$out/$1-seed$2" --resume "${@:3}"
}

for seed in 0 1; do
  one levels "$seed" --glimpse-size 16 --stride 4 --zoom 3 &
  one scales "$seed" --glimpse-size 16 --stride 4 --scales 3 &
  wait
  one small "$seed" --glimpse-size 16 --stride 4 &
  one large "$seed" --glimpse-size 64 --stride 4 &
  wait
done
for name in levels scales small large; do
  uv run nogs evaluate --models "$out/$name-seed0" "$out/$name-seed1" --out "$out/$name-evaluation" --resume
done
