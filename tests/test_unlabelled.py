"""Images without labels: read from a table, they complete others and get sequences, and teach no label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nogs
from nogs.attention.network import Rollout
from nogs.attention.objectives import label_loss, partially_supervised_loss
from nogs.config.groups import Source
from nogs.data import SPLITS, load
from nogs.sequences.table import Sequences, load_sequences, on_labelled_images
from sets import make_csv, message
from staged import ANNOTATED, Stages, run_of, same_bits
from tiny import pictures

TRAIN, VAL, TEST, UNLABELLED = 60, 30, 30, 50


def test_the_label_of_an_unlabelled_row_is_not_read(tmp_path: Path) -> None:
    rows = ["0.png,a,train", "1.png,b,train", "2.png,,unlabelled", "3.png,c,unlabelled", "4.png,a,val", "5.png,b,test"]
    images = load(Source(data=f"csv:{make_csv(tmp_path, 'file,kind,split', rows)}"))
    assert images.classes == ("a", "b")
    assert images.labels.tolist() == [0, 1, -1, -1, 0, 1]
    assert images.members("unlabelled").tolist() == [2, 3]
    assert [images.members(split).tolist() for split in SPLITS] == [[0, 1], [4], [5]]


def test_several_labels_of_which_some_images_have_none(tmp_path: Path) -> None:
    rows = ["0.png,1,0,train", "1.png,0,1,train", "2.png,,,unlabelled", "3.png,?,2,unlabelled", "4.png,1,1,val"]
    path = make_csv(tmp_path, "file,a,b,split", [*rows, "5.png,0,0,test"])
    images = load(Source(data=f"csv:{path}"))
    assert images.multilabel
    assert images.labels.tolist() == [[1, 0], [0, 1], [-1, -1], [-1, -1], [1, 1], [0, 0]]
    assert load(Source(data=f"csv:{path}", task="b")).labels.tolist() == [0, 1, -1, -1, 1, 0]


def test_a_training_image_needs_its_label(tmp_path: Path) -> None:
    rows = ["0.png,a,train", "1.png,,train", "2.png,,unlabelled"]
    path = make_csv(tmp_path, "file,kind,split", rows)
    assert "line 3: column kind: the label is missing" in message(f"csv:{path}")


@pytest.mark.parametrize("unlabelled", [0, 4])
def test_unlabelled_images_get_sequences_if_there_are_any(unlabelled: int) -> None:
    split = torch.tensor([3] * unlabelled + [0] * 10 + [1, 2])
    n = len(split)
    images = nogs.data.ImageSet(
        torch.zeros(n, 1, 4, 4, dtype=torch.uint8),
        torch.zeros(n, dtype=torch.long),
        ("a", "b"),
        split,
        torch.arange(n),
        tuple(map(str, range(n))),
    )
    drawn = images.annotated(100, 0)
    assert len(drawn.unique()) == len(drawn) == (unlabelled or 5)
    assert set(split[drawn].tolist()) == ({3} if unlabelled else {0})
    assert images.bank_members().tolist() == list(range(unlabelled + 10))
    of_all = Sequences(drawn, torch.arange(2 * len(drawn)).view(-1, 2))
    scored = on_labelled_images(of_all, images, generator=torch.Generator())
    assert scored.images.tolist() == ([unlabelled + 10] if unlabelled else drawn.tolist())
    assert all(row in of_all.cells.tolist() for row in scored.cells.tolist())


@pytest.mark.parametrize("supervised_labels", [True, False])
def test_an_image_without_a_label_has_the_loss_of_its_locations_alone(supervised_labels: bool) -> None:
    """Beside an image with a label; the expected loss is summed up by hand."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, generator=generator, requires_grad=True)
    log_policy, baselines = (torch.randn(2, 3, generator=generator) for _ in range(2))
    rollout = Rollout(torch.zeros(2, 3, dtype=torch.long), log_policy, baselines, logits, torch.zeros(2, 3, 5))
    labels, supervised = torch.tensor([1, -1]), torch.tensor([True, True])
    assert label_loss(logits, labels)[1] == 0
    loss = partially_supervised_loss(rollout, labels, supervised, supervised_labels=supervised_labels)
    expected = -log_policy.sum(1).mean()
    if supervised_labels:
        expected = expected - logits[0].log_softmax(-1)[:, 1].mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits.grad is None or not logits.grad[1].any()


def write_table(root: Path, *, noise: str = "", painted: bool = False) -> Path:
    """Write images of three classes and their table. ``noise``: the label column of rows without a label.

    ``painted``: whether unlabelled images are negatives.
    """
    splits = np.repeat([*SPLITS, "unlabelled"], [TRAIN, VAL, TEST, UNLABELLED])
    labels = np.arange(len(splits)) % 3
    lines = ["file,kind,split"]
    for i, pixels in enumerate(pictures(labels, seed=0)):
        labelled = splits[i] != "unlabelled"
        Image.fromarray(pixels if labelled or not painted else 255 - pixels).save(root / f"{i}.png")
        lines.append(f"{i}.png,{labels[i] if labelled else noise},{splits[i]}")
    (root / "table.csv").write_text("\n".join(lines))
    return root / "table.csv"


def staged(root: Path, *, noise: str = "", painted: bool = False) -> Stages:
    root.mkdir()
    stages = Stages(root, root)
    stages.source = nogs.Source(data=f"csv:{write_table(root, noise=noise, painted=painted)}")
    return stages


@pytest.mark.slow
def test_every_stage_runs_and_no_label_of_theirs_is_used(tmp_path: Path) -> None:
    """Nonsense in their label column changes no bit; other pixels change the sequences, but not the posterior."""
    tables = {
        "none": staged(tmp_path / "none"),
        "nonsense": staged(tmp_path / "nonsense", noise="7"),
        "painted": staged(tmp_path / "painted", painted=True),
    }
    for stages in tables.values():
        stages.posterior()
        stages.bank()
        stages.search()
        stages.train("ps-nogs", "ps-nogs")
        stages.train("published", "ps-nogs", seed=1, supervision="published")
        stages.train("gain-nogs", "gain-nogs")
        stages.evaluate("evaluation", "ps-nogs", "published", "gain-nogs")

    def same(name: str, file: str) -> list[bool]:
        own = run_of(tables["none"], name)
        return [same_bits(own, run_of(tables[other], name), file) for other in ("nonsense", "painted")]

    assert same("posterior", "model.safetensors") == [True, True]
    assert same("ps-nogs", "model.safetensors") == [True, False]
    assert same("published", "model.safetensors") == [True, False]
    ours = [load_sequences(run_of(tables[name], "sequences")) for name in ("none", "nonsense", "painted")]
    assert len(ours[0].images) == ANNOTATED
    assert ours[0].images.min() >= TRAIN + VAL + TEST
    assert torch.equal(ours[0].cells, ours[1].cells)
    assert not torch.equal(ours[0].cells, ours[2].cells)
    bank = run_of(tables["none"], "bank").load_tensors("bank")
    assert bank["members"].tolist() == [*range(TRAIN), *range(TRAIN + VAL + TEST, TRAIN + VAL + TEST + UNLABELLED)]
    assert run_of(tables["none"], "sequences").load_json("usefulness.json")["images"] == VAL
