#!/usr/bin/env bash
# Cluttered translated MNIST at 60 and 100 pixels: hard attention at several scales beside small CNNs.
#
#   bash experiments/cluttered_mnist.sh DIGITS OUT      (DIGITS: an npz with images uint8 [N, 28, 28] and labels [N])
#
# The literature's RAM errs on 5.2 % and 10.8 % (Mnih et al. 2014) with 60,000 digits; compare at equal data.
# Hardware: two cores, no GPU, a size on each: about an hour at 60 pixels and an hour and a half at 100.
# docs/results/README.md has what was measured with 10,000 digits. Killed, the same line goes on.
set -euo pipefail
digits=$1 out=$2
mkdir -p "$out"
export OMP_NUM_THREADS=1

one() { # canvas, glimpses, sizes that CNNs see
  local data="$out/cluttered-$1.npz"
  [ -f "$data" ] || uv run python experiments/cluttered_mnist.py "$digits" "$data" --canvas "$1"
  uv run nogs run --data "npz:$data" --glimpse-size 12 --stride 4 --scales 3 --glimpses "$2" --no-mirror --jobs 1 \
    --seeds 0,1 --iterations 12000 --patience 6000 --posterior-iterations 6000 --pooling 0 --out "$out/$1" --resume
  uv run nogs baselines --data "npz:$data" --architectures mobilenet-v2 --resolutions "$3" --widths 0.25 \
    --learning-rates 0.004 --out "$out/$1-cnns" --resume
}

one 60 6 24,48 &
one 100 8 48,96 &
wait
