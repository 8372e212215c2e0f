"""Splits: their shares, and groups that stay together."""

import numpy as np
import pytest

from nogs.data.splits import complete, cut
from nogs.errors import UserError


def test_cut_takes_the_share_of_every_stratum_and_whole_groups():
    groups = np.repeat(np.arange(200), 3)
    strata = np.repeat(np.arange(200) % 4, 3)
    drawn = cut(np.ones(600, dtype=np.bool_), strata, groups=groups, share=0.2, seed=5)
    assert np.bincount(strata[drawn]).tolist() == [30] * 4
    assert set(np.unique(groups[drawn])) & set(np.unique(groups[~drawn])) == set()


def test_a_split_is_made_80_10_10_with_every_class_in_train():
    labels = np.repeat([0, 1, 2, 3], [500, 300, 3, 2]).astype(np.int64)
    split = complete(None, labels, groups=np.arange(805), seed=0)
    assert np.bincount(split[labels == 0]).tolist() == [400, 50, 50]
    assert np.bincount(split[labels == 1]).tolist() == [240, 30, 30]
    assert np.bincount(split[labels == 2]).tolist() == [1, 1, 1]
    assert (split[labels == 3] == 0).sum() == 1
    again = complete(None, labels, groups=np.arange(805), seed=0)
    other = complete(None, labels, groups=np.arange(805), seed=1)
    assert (split == again).all()
    assert (split != other).any()


@pytest.mark.parametrize(("given", "counts"), [((0, 1), [60, 20, 20]), ((0, 2), [54, 6, 40]), ((0,), [80, 10, 10])])
def test_missing_splits_are_cut_by_the_table(given, counts):
    sizes = {(0, 1): [60, 40], (0, 2): [60, 40], (0,): [100]}[given]
    split = complete(
        np.repeat(np.array(given, dtype=np.int64), sizes),
        np.zeros(100, dtype=np.int64),
        groups=np.arange(100),
        seed=0,
    )
    assert np.bincount(split).tolist() == counts
    assert (split[: sizes[0]] != 2).all() or given == (0,)  # test never comes out of a train split that was given


def test_splits_hold_groups_together():
    groups = np.random.default_rng(0).integers(0, 60, 400)
    labels = np.zeros((400, 5), dtype=np.int64)
    for given in (None, (groups % 2).astype(np.int64)):
        split = complete(given, labels, groups=groups, seed=2)
        assert all(len(np.unique(split[groups == group])) == 1 for group in np.unique(groups))


def test_a_group_in_two_given_splits_is_refused():
    with pytest.raises(UserError, match="group 4 are in train and test"):
        complete(np.array([0, 0, 1, 2]), np.zeros(4, dtype=np.int64), groups=np.array([1, 4, 2, 4]), seed=0)
