#!/usr/bin/env bash
# Speed limits in street photographs: learn from signs pasted into them, test on untouched ones.
#
#   bash experiments/gtsdb.sh DATA OUT      (DATA: a folder with FullIJCNN2013 and GTSRB, as they unpack)
#
# Three steps, because a sign covers one in 1,300 pixels: a network without an overview learns to read at the places of
# pasted signs; with an overview of 136 pixels it learns where these are; then learned gain goes on, which looks elsewhere
# after a glimpse that showed nothing. Hardware: one core, about an hour. Killed, the same line goes on.
set -euo pipefail
data=$(realpath "$1") out=$2
export OMP_NUM_THREADS=1
images=(--data "gtsdb-pasted:$data" --fit pad)
glimpses=(--glimpse-size 48 --stride 16)
how=(--patience 0 --schedule cosine --jitter 8 --initial he --hidden 128 --resume)
places() { # glimpses, further options: the sequences that begin at the pasted limit
  [ -s "$out/places-$1.csv" ] || uv run python experiments/gtsdb.py "gtsdb-pasted:$data" 48 16 "$1" > "$out/places-$1.csv"
  uv run nogs sequences import "${images[@]}" "${glimpses[@]}" --glimpses "$1" "${@:2}" --sequences "$out/places-$1.csv" \
    --out "$out/places-$1" --resume
}
taught=(--method ps-hgs --supervision published)
mkdir -p "$out"
places 1
places 3 --overview 136
uv run nogs train "${images[@]}" "${glimpses[@]}" "${how[@]}" "${taught[@]}" --sequences "$out/places-1" --glimpses 1 \
  --learning-rate 2e-3 --batch-size 96 --supervised-batch 64 --iterations 10000 --validate-every 10000 --out "$out/reader"
uv run nogs train "${images[@]}" "${glimpses[@]}" "${how[@]}" "${taught[@]}" --sequences "$out/places-3" --glimpses 3 \
  --overview 136 --learning-rate 2e-3 --batch-size 32 --supervised-batch 16 --iterations 2400 --start "$out/reader" --out "$out/finder"
uv run nogs train "${images[@]}" "${glimpses[@]}" "${how[@]}" --method gain --glimpses 8 --overview 136 --batch-size 32 \
  --gain-candidates 8 --exploration 0.1 --learning-rate 1e-3 --iterations 900 --start "$out/finder" --out "$out/gain"
uv run nogs baselines "${images[@]}" --architectures mobilenet-v2 --resolutions 340 --widths 0.5 --learning-rates 2e-3 \
  --iterations 700 --batch-size 32 --validate-every 70 --patience 0 --schedule cosine --no-upper-bound --out "$out/cnn" --resume
uv run nogs evaluate --models "$out/finder" --out "$out/evaluation-finder" --resume
uv run nogs evaluate --models "$out/gain" --out "$out/evaluation-gain" --resume
