#!/usr/bin/env bash
# Cluttered translated MNIST at 60 and 100 pixels: hard attention at several scales beside small CNNs.
#
#   bash experiments/cluttered_mnist.sh DIGITS OUT      (DIGITS: an npz with images uint8 [N, 28, 28] and labels [N])
#
# The literature's RAM errs on 5.2 % and 10.8 % (Mnih et al. 2014) with 60,000 digits; compare at equal data.
# Hardware: two cores, no GPU. Not run whole yet. Killed, the same line goes on.
set -euo pipefail
digits=$1 out=$2
mkdir -p "$out"
export OMP_NUM_THREADS=1

one() {
  local data="$out/cluttered-$1.npz"
  [ -f "$data" ] || uv run python experiments/cluttered_mnist.py "$digits" "$data" --canvas "$1"
  uv run nogs run --data "npz:$data" --glimpse-size 12 --stride 4 --scales 3 --glimpses "$2" --no-mirror --jobs 1 \
    --iterations 20000 --patience 6000 --posterior-iterations 12000 --pooling 0 --cnns --out "$out/$1" --resume
}

one 60 6 &
one 100 8 &
wait
