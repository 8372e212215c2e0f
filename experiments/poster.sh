#!/usr/bin/env bash
# The poster's comparison: every method of the paper, three controls, adaptive stopping and small CNNs, label by label.
#
#   bash experiments/poster.sh CELEBA OUT [TASK...]      (CELEBA: a folder in the official layout)
#
# Hardware: two cores, no GPU; two labels side by side, a core each. A label at 64 px with its three seeds takes ten to
# fifteen minutes with ram and ps-nogs alone; ps-ram adds five, ws-ram half an hour, the grid of CNNs as much again, so
# that all of it takes some ten hours. What was run of it so far, and its numbers: docs/results/README.md.
# Killed, the same line goes on; with other --methods or --seeds it adds to what is there. Ends with a page over all labels
# for each size, poster-64/poster.html and poster-128/poster.html.
set -euo pipefail
celeba=$1 out=$2
shift 2
at_64=("${@:-Smiling Eyeglasses Male Bangs Wearing_Hat Bald}")
read -ra at_64 <<<"${at_64[*]}"
at_128=(Smiling Eyeglasses Bangs)
export OMP_NUM_THREADS=1

one() { # task, pixels, the rest as flags
  uv run nogs run --data "celeba:$celeba" --task "$1" --image-size "$2" --jobs 1 --out "$out/$1-$2" --resume \
    --iterations 10000 --patience 4000 --methods ram,ws-ram,ps-ram,ps-nogs,path,random,centre --cnns "${@:3}"
}

two_at_a_time() { # pixels, tasks
  local px=$1
  shift
  while (($#)); do
    one "$1" "$px" &
    [ $# -gt 1 ] && one "$2" "$px" &
    wait
    shift $(($# > 1 ? 2 : 1))
  done
}

two_at_a_time 64 "${at_64[@]}"
two_at_a_time 128 "${at_128[@]}"

poster() { # pixels, tasks; photographs may not be published: maps are drawn over the mean image
  local px=$1 runs=()
  for task in "${@:2}"; do
    uv run nogs report --run "$out/$task-$px" --publishable --figures png,pdf
    runs+=("$out/$task-$px")
  done
  uv run nogs report --runs "$(IFS=, && echo "${runs[*]}")" --out "$out/poster-$px" --figures png,pdf
}

poster 64 "${at_64[@]}"
poster 128 "${at_128[@]}"
