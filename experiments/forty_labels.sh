#!/usr/bin/env bash
# All forty labels of CelebA from one posterior and one bank: sequences, RAM, PS-NOGS and one designed path, one page.
#
#   bash experiments/forty_labels.sh CELEBA OUT [METHODS]     (CELEBA: a folder in the official layout)
#
# 64 px, 4,000 iterations of batch 64, one seed. Hardware: two cores, no GPU; about an hour for ram,ps-nogs. Killed, the
# same line goes on; with more METHODS it adds them to what is there.
set -euo pipefail
celeba=$(realpath "$1") out=$2 methods=${3:-ram,ps-nogs,path}
mkdir -p "$out"
cat > "$out/forty.toml" <<TOML
data = "celeba:$celeba"
image_size = 64
posterior_iterations = 6000
iterations = 4000
stopping = false

[faces]
task = "*"
TOML
OMP_NUM_THREADS=1 uv run nogs bench "$out/forty.toml" --methods "$methods" --seeds 0 --out "$out/bench" --resume
