#!/usr/bin/env bash
# Speed limits in street photographs: learn from signs pasted into them, test on untouched ones.
#
#   bash experiments/gtsdb.sh DATA OUT      (DATA: a folder with FullIJCNN2013 and GTSRB, as they unpack)
#
# In two steps, because an overview costs most and a sign covers one pixel in a thousand: a network without an overview
# learns to read at the places of pasted limits; then one with an overview of 136 pixels learns where they are. Hardware:
# one core, half an hour, and 20 minutes for the CNN. Killed, the same line goes on.
set -euo pipefail
data=$(realpath "$1") out=$2
export OMP_NUM_THREADS=1
images=(--data "gtsdb-pasted:$data" --fit pad)
how=(--glimpse-size 48 --stride 16 --method ps-hgs --supervision published --jitter 8 --initial he --hidden 128
  --learning-rate 2e-3 --schedule cosine --patience 0 --resume)
places() { # glimpses, further options of the geometry: sequences that begin at the pasted limit
  [ -s "$out/places-$1.csv" ] || uv run python experiments/gtsdb.py "gtsdb-pasted:$data" 48 16 "$1" > "$out/places-$1.csv"
  uv run nogs sequences import "${images[@]}" --glimpse-size 48 --stride 16 --glimpses "$1" "${@:2}" \
    --sequences "$out/places-$1.csv" --out "$out/places-$1" --resume
}
mkdir -p "$out"
places 1
places 3 --overview 136
uv run nogs train "${images[@]}" "${how[@]}" --sequences "$out/places-1" --glimpses 1 --batch-size 96 \
  --supervised-batch 64 --iterations 10000 --validate-every 10000 --out "$out/reader"
uv run nogs train "${images[@]}" "${how[@]}" --sequences "$out/places-3" --glimpses 3 --overview 136 --batch-size 32 \
  --supervised-batch 16 --iterations 2400 --start "$out/reader" --out "$out/finder"
uv run nogs baselines "${images[@]}" --architectures mobilenet-v2 --resolutions 340 --widths 0.5 --learning-rates 2e-3 \
  --iterations 700 --batch-size 32 --validate-every 70 --patience 0 --schedule cosine --no-upper-bound \
  --out "$out/cnn" --resume
uv run nogs evaluate --models "$out/finder" --out "$out/evaluation" --resume
uv run python benchmarks/latency.py "$out/finder" --cnn mobilenet-v2:1360:0.5 --images 40
