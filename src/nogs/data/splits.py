"""Train, val and test where the source leaves some of them out: whole groups, seeded, by class.

========================  =====================================================
the source has            and then
========================  =====================================================
train, val and test       nothing is moved
train and val             test is half of val
train and test            val is a tenth of train
train alone, or no split  test is a tenth and val a tenth; the rest is train
========================  =====================================================

Images of one group (a person) stay together. Where images have one label, each class is cut on its own
(a group counts for the class of its first image), so that every class keeps some of its groups.
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
    """A seeded draw of about ``share`` of the groups of the images ``among``, from each stratum.

    At least one group of a stratum, but never all of them.
    """
    candidates = among.nonzero()[0]
    people, first = np.unique(groups[candidates], return_index=True)
    order = np.random.default_rng(seed).permutation(len(people))
    drawn: list[Int[np.ndarray, " n"]] = []
    for stratum in np.unique(strata[candidates]):
        mine = order[strata[candidates[first[order]]] == stratum]
        count = min(max(1, round(len(mine) * share)), len(mine) - 1)
        drawn.append(people[mine[: max(0, count)]])
    return among & np.isin(groups, np.concatenate(drawn))


def complete(
    split: Int[np.ndarray, " N"] | None,
    labels: Int[np.ndarray, " N"] | Int[np.ndarray, "N K"],
    *,
    groups: Int[np.ndarray, " N"],
    seed: int,
) -> Int[np.ndarray, " N"]:
    """The split (0 train, 1 val, 2 test) of every image, by the table above.

    Raises UserError where there is no train split, where one would be empty, or a group is in two.
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
    _hold_together(made, groups)
    return made


def _hold_together(split: Int[np.ndarray, " N"], groups: Int[np.ndarray, " N"]) -> None:
    pairs = np.unique(np.stack([groups, split], axis=1), axis=0)
    twice = pairs[1:, 0][pairs[1:, 0] == pairs[:-1, 0]]
    if len(twice):
        both = [SPLITS[which] for group, which in pairs if group == twice[0]]
        raise UserError(
            f"`data`: images of group {twice[0]} are in {' and '.join(both)} ({len(twice)} such groups); "
            "put all images of one person in one split"
        )
