"""ImageSet: square images with labels, splits and groups, the common result of all sources."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from nogs.data.memory import check_memory
from nogs.data.pixels import Pixels
from nogs.errors import UserError

Split = Literal["train", "val", "test", "unlabelled"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
"""The splits whose images have labels."""
UNLABELLED: Split = "unlabelled"
"""The split of images without a label, which complete others and get sequences."""
ALL_SPLITS = (*SPLITS, UNLABELLED)
"""The splits in the order of their numbers."""
NO_LABEL = -1
"""The label of an image without one."""


@dataclass(frozen=True)
class ImageSet:
    """N square images in memory, memory-mapped or drawn when they are read, and their labels.

    ``images``: uint8 in [0, 255], channels first (1 grey, 3 RGB).
    ``labels``: [N], the index in ``classes`` of each image's class; or [N, K] of 0/1 for a multi-label set, and then
    ``classes`` names the K labels. `NO_LABEL` for unlabelled images.
    ``split``: 0 train, 1 val, 2 test, 3 unlabelled, as in `ALL_SPLITS`.
    ``groups``: images of one group (one person) are in one split, and do not complete each other. If groups are
    unknown, each image is a group.
    ``names``: the name of each image in its source, a file or a row.
    ``task``: the label that was selected from a set with several, else None.
    ``skipped``: number of files and rows that were left out because they cannot be used.
    """

    images: Pixels
    labels: Int[Tensor, " N"] | Int[Tensor, "N K"]
    classes: tuple[str, ...]
    split: Int[Tensor, " N"]
    groups: Int[Tensor, " N"]
    names: tuple[str, ...]
    task: str | None = None
    skipped: int = 0

    @property
    def multilabel(self) -> bool:
        return self.labels.ndim == 2

    def __len__(self) -> int:
        return len(self.images)

    def check_one_label(self) -> None:
        """Raise UserError for a multi-label set."""
        if self.multilabel:
            raise UserError(f"these images have many labels: choose `task` among {', '.join(self.classes)}")

    def select(self, task: str | None) -> ImageSet:
        """Return the images under one label of a multi-label set, with classes ("not TASK", TASK).

        With ``task`` None a multi-label set stays whole. Raises UserError for a task that does not exist.
        """
        if task is None:
            return self
        if not self.multilabel:
            raise UserError(f"task={task}: these images have one label only, of classes {', '.join(self.classes)}")
        if task not in self.classes:
            raise UserError(f"task={task} does not exist: choose one of {', '.join(self.classes)}")
        labels = self.labels[:, self.classes.index(task)]
        return replace(self, labels=labels, classes=(f"not {task}", task), task=task)

    def in_memory(self) -> UInt8[Tensor, "N c H H"]:
        """Return all images as one tensor; canvases are drawn. Raises UserError if these exceed the memory."""
        if isinstance(self.images, Tensor):
            return self.images
        N, channels, image_px, _ = self.images.shape
        check_memory(N, channels=channels, image_px=image_px)
        return self.images.drawn(image_px)

    def members(self, split: Split) -> Int[Tensor, " n"]:
        """Return the indices of the images of a split, ascending."""
        return (self.split == ALL_SPLITS.index(split)).nonzero()[:, 0]

    def annotated(self, count: int, seed: int) -> Int[Tensor, " n"]:
        """Return the indices of the images that get sequences, a seeded draw that is the same in every stage.

        They are unlabelled images if there are any. Otherwise they are at most half of the training images, and the
        posterior is not trained on them.
        """
        unlabelled, train = self.members(UNLABELLED), self.members("train")
        among, most = (unlabelled, len(unlabelled)) if len(unlabelled) else (train, len(train) // 2)
        order = torch.randperm(len(among), generator=torch.Generator().manual_seed(seed))
        return among[order[: min(count, most)]]

    def bank_members(self) -> Int[Tensor, " n"]:
        """Return the indices of the images that complete others: training and unlabelled ones, ascending."""
        return torch.cat((self.members("train"), self.members(UNLABELLED))).sort().values
