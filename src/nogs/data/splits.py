"""Complete the splits that a source leaves out, by a seeded draw of whole groups from each class.

========================  =====================================================
the source has            the other splits
========================  =====================================================
train, val and test       none is missing
train and val             test is half of val
train and test            val is a tenth of train
train alone, or no split  test is a tenth and val a tenth; the rest is train
========================  =====================================================

Images of one group (a person) are in one split. If images have one label, groups are drawn from each class separately,
so that every class keeps groups in train. A group belongs to the class of its first image.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from nogs.data.imageset import SPLITS
from nogs.errors import UserError

TRAIN, VAL, TEST = range(len(SPLITS))


def cut(
    among: Bool[np.ndarray, " N"],
    strata: Int[np.ndarray, " N"],
    *,
    groups: Int[np.ndarray, " N"],
    share: float,
    seed: int,
) -> Bool[np.ndarray, " N"]:
    """Draw about ``share`` of the groups from each stratum, and return which images are in them.

    ``among``: the images that may be drawn. ``strata``: the stratum of each image; a group is in that of its first
    image. At least one group of each stratum is drawn, but never all.
    """
    candidates = among.nonzero()[0]
    members, first = np.unique(groups[candidates], return_index=True)
    order = np.random.default_rng(seed).permutation(len(members))
    drawn: list[Int[np.ndarray, " n"]] = []
    for stratum in np.unique(strata[candidates]):
        drawable = order[strata[candidates[first[order]]] == stratum]
        count = min(max(1, round(len(drawable) * share)), len(drawable) - 1)
        drawn.append(members[drawable[: max(0, count)]])
    return among & np.isin(groups, np.concatenate(drawn))


def complete(
    split: Int[np.ndarray, " N"] | None,
    labels: Int[np.ndarray, " N"] | Int[np.ndarray, "N K"],
    *,
    groups: Int[np.ndarray, " N"],
    seed: int,
) -> Int[np.ndarray, " N"]:
    """Return the split (0 train, 1 val, 2 test) of every image, by the table above.

    ``split``: the splits of the source, None if it has none. Raises UserError if no image is in train, if a split
    would be empty, or if a group is in two splits.
    """
    strata = labels if labels.ndim == 1 else np.zeros(len(labels), dtype=np.int64)
    made = np.zeros(len(labels), dtype=np.int64) if split is None else split.astype(np.int64)
    has = [bool((made == which).any()) for which in range(len(SPLITS))]
    if not has[TRAIN]:
        raise UserError("`data`: no image is in the train split; put most of them there")
    if not has[TEST]:
        source, share = (VAL, 1 / 2) if has[VAL] else (TRAIN, 1 / 10)
        made[cut(made == source, strata, groups=groups, share=share, seed=seed)] = TEST
    if not has[VAL]:
        share = 1 / 10 if has[TEST] else 1 / 9
        made[cut(made == TRAIN, strata, groups=groups, share=share, seed=seed + 1)] = VAL
    for which, name in enumerate(SPLITS):
        if not (made == which).any():
            raise UserError(
                f"`data`: {len(made)} images are too few to make a {name} split of; "
                "give every class three images or more, or a split of your own"
            )
    _check_groups(made, groups)
    return made


def _check_groups(split: Int[np.ndarray, " N"], groups: Int[np.ndarray, " N"]) -> None:
    """Raise UserError if a group is in two splits."""
    pairs = np.unique(np.stack([groups, split], axis=1), axis=0)
    twice = pairs[1:, 0][pairs[1:, 0] == pairs[:-1, 0]]
    if len(twice):
        both = [SPLITS[which] for group, which in pairs if group == twice[0]]
        raise UserError(
            f"`data`: images of group {twice[0]} are in {' and '.join(both)} ({len(twice)} such groups); "
            "put all images of one person in one split"
        )
