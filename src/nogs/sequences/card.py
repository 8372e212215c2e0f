"""The card of glimpse sequences that are shared as a data set: README.md with the YAML header of the hub.

`datasets.load_dataset` reads the folder, or a repository of its files (https://huggingface.co/docs/hub/datasets-cards).
"""

from __future__ import annotations

from nogs.config.groups import Geometry, Source

CSV = "sequences.csv"
ORIGINS = {
    "search": "designed: each glimpse has the greatest expected information gain on the label, given those before it",
    "record": "taken by a trained network",
    "sequences import": "imported from a file",
}


def dataset_card(origin: str, source: Source, geometry: Geometry, *, images: int, image_px: int) -> str:
    """Return README.md for sequences of ``images`` images. ``origin``: the stage that made them."""
    task = f", label {source.task}" if source.task else ""
    return f"""---
tags:
- glimpse-sequences
- hard-attention
- nogs
configs:
- config_name: default
  data_files: {CSV}
---

# Glimpse sequences of `{source.public}`{task}

Where to look in {images:,} images: {geometry.glimpses} glimpses of {geometry.glimpse_size} × {geometry.glimpse_size}
pixels each, on images of {image_px} × {image_px} pixels, with a stride of {geometry.stride} pixels. They were
{ORIGINS[origin]}.

`{CSV}` has a row for each glimpse: `image` (its name in the data), `task`, `step` (from 1), `row` and `col` (of the
glimpse's top-left pixel), and `eig_nats` (the expected information gain that it was chosen for, empty if there was
none). The images are not part of this data set.

To train on them: `nogs sequences import --sequences {CSV} --data SPEC --out DIR`.
"""
