"""Train with few labelled faces and all others unlabelled: the work of few_labels.sh.

    python experiments/few_labels.py draw CELEBA OUT DRAW       tables of one draw: OUT/drawDRAW-nN.csv for each N
    python experiments/few_labels.py train OUT DRAW N TASK      every method on one of them, OUT/TASK-drawDRAW-nN
    python experiments/few_labels.py table OUT                  what was trained so far, as Markdown

The test images are those of ``celeba:CELEBA``, all 2,270. Of the training partition N images are labelled, and of the
validation partition max(50, N / 4), which choose iterations and settings of every method. People do not cross
partitions. Both draws are nested: a larger N has the images of a smaller one. They keep the share of Eyeglasses to the
nearest image, so that a hundred labels hold seven faces with glasses. All other images of both partitions are
unlabelled.

A method is trained on one of two sources. In ``all`` the unlabelled images are in the bank, 300 of them get sequences,
and the posterior is fitted to all N. In ``labelled`` there are none: the bank has the N images, and a quarter of them
get sequences and are left out of the posterior's fit.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

import nogs
from nogs.config.groups import Optimisation, PosteriorNetwork, Source
from nogs.data import SPLITS, ImageSet, load
from nogs.data.imageset import UNLABELLED
from nogs.evaluation.scores import class_frequencies, scores
from nogs.rivals.cnn import UPPER_BOUND, shrink
from nogs.specs import CNNSpec
from nogs.training.adam import Adam

LABELLED = (100, 300, 1000)
TASKS = ("Smiling", "Eyeglasses", "Male")
STRATIFIED = "Eyeglasses"
IMAGE_PX = 64
SEQUENCES = 300
ITERATIONS = {"path": 1200, "ps-nogs": 1500, "ram": 2000, "gain-nogs": 1000, "gain": 1500}
PATIENCE = {"ram": 600, "gain-nogs": 0}
"""Iterations without a better validation loss after which a training stops, `LEAST_PATIENCE` for the other methods.

gain-nogs is never stopped, because what it learns from changes until its last iteration.
"""
LEAST_PATIENCE = 250
ON_LABELLED = ("path", "ps-nogs")
"""Methods that are also trained without unlabelled images."""
JITTER, AVERAGE = 2, 0.98
CNNS = ((UPPER_BOUND, 32, 1.0), (UPPER_BOUND, 48, 1.0))
"""Architecture, resolution in pixels and width of whole-image CNNs."""
CNN_ITERATIONS, CNN_LEARNING_RATE, BATCH, EVERY = 800, 2e-3, 64, 50
SHIFT = 4
"""Most pixels of 64 by which images are shifted in the training of CNNs; half of them are mirrored too."""


def validated(labelled: int) -> int:
    """Return the number of validation images beside so many labelled training images."""
    return max(50, labelled // 4)


def order(positive: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Return an order of all images in which the first n hold round(n x rate) positives, for every n."""
    among = [rng.permutation(np.flatnonzero(positive == sign)) for sign in (False, True)]
    due = np.diff(np.round(np.arange(len(positive) + 1) * positive.mean())).astype(int)
    turns = [iter(of_sign) for of_sign in among]
    return np.array([next(turns[sign]) for sign in due])


def draw(celeba: Path, out: Path, seed: int) -> None:
    """Write the tables of one draw, unless they exist.

    Those with all images list the same files, so that these are decoded once.
    """
    if (out / f"draw{seed}-n{LABELLED[-1]}-labelled.csv").exists():
        return
    faces = load(Source(data=f"celeba:{celeba}", image_size=IMAGE_PX))
    rng = np.random.default_rng(seed)
    positive = faces.labels[:, faces.classes.index(STRATIFIED)].numpy() == 1
    ranked = {
        split: (rows := faces.members(split).numpy())[order(positive[rows], rng=rng)] for split in ("train", "val")
    }
    test = set(faces.members("test").tolist())
    columns = [faces.classes.index(task) for task in TASKS]
    out.mkdir(parents=True, exist_ok=True)
    for labelled in LABELLED:
        train = set(ranked["train"][:labelled].tolist())
        val = set(ranked["val"][: validated(labelled)].tolist())
        split_of = {row: name for name, rows in zip(SPLITS, (train, val, test), strict=True) for row in rows}
        for name, listed in (("all", list(range(len(faces)))), ("labelled", sorted(split_of))):
            with (out / f"draw{seed}-n{labelled}-{name}.csv").open("w", newline="", encoding="utf-8") as stream:
                table = csv.writer(stream)
                table.writerow(["file", "split", *TASKS])
                for row in listed:
                    labels = faces.labels[row, columns].tolist() if row in split_of else [""] * len(TASKS)
                    file = (celeba / "img_align_celeba" / faces.names[row]).absolute()
                    table.writerow([file, split_of.get(row, UNLABELLED), *labels])


def silent(done: int, note: str) -> None:
    """Show no progress."""


def train(out: Path, seed: int, labelled: int, task: str) -> None:
    """Train every method on one table and evaluate them. What is finished is not done again."""
    at = out / f"{task}-draw{seed}-n{labelled}"

    def source(name: str) -> Source:
        return Source(data=f"csv:{out}/draw{seed}-n{labelled}-{name}.csv", task=task, image_size=IMAGE_PX)

    compare(at / "all", source("all"), tuple(ITERATIONS), SEQUENCES, seed)
    whole_images(at / "cnns.json", load(source("labelled")), seed)
    compare(at / "labelled", source("labelled"), ON_LABELLED, labelled // 4, seed)


def compare(at: Path, source: Source, methods: tuple[str, ...], annotate: int, seed: int) -> None:
    """Fit the posterior, design sequences, train the methods and evaluate them, in run directories below ``at``."""

    def machine(name: str) -> nogs.Machine:
        return nogs.Machine(at / name, resume=True, device="cpu")

    fitting = Optimisation(600, 128, 2e-3, EVERY, 0, seed, average=AVERAGE)
    nogs.fit_posterior(
        nogs.FitPosterior(
            machine("posterior"), source, network=PosteriorNetwork(), optimisation=fitting, annotate=annotate
        ),
        silent,
    )
    nogs.build_bank(nogs.BuildBank(machine("bank"), source, seed=seed), silent)
    for name, pooling in (("sequences", 0.75), ("path", 1.0)):
        nogs.search(nogs.Search(machine(name), at / "posterior", at / "bank", pooling=pooling, seed=seed), silent)
    for method in methods:
        sequences = {"path": at / "path", "ps-nogs": at / "sequences", "gain-nogs": at / "sequences"}.get(method)
        nogs.train(
            nogs.Train(
                machine(f"train-{method}"),
                source,
                optimisation=Optimisation(
                    ITERATIONS[method],
                    BATCH,
                    1e-3,
                    EVERY,
                    PATIENCE.get(method, LEAST_PATIENCE),
                    seed,
                    average=AVERAGE,
                ),
                method=method,
                sequences=sequences,
                jitter=JITTER,
            ),
            silent,
        )
    models = tuple(at / f"train-{method}" for method in methods)
    nogs.evaluate(nogs.Evaluate(machine("evaluation"), models, at / "sequences", examples=1), silent)


def whole_images(file: Path, data: ImageSet, seed: int) -> None:
    """Train the CNNs, and write the scores of each to ``file``."""
    rows = json.loads(file.read_text()) if file.exists() else []
    file.parent.mkdir(parents=True, exist_ok=True)
    for architecture, resolution_px, width in CNNS[len(rows) :]:
        spec = CNNSpec(architecture, resolution_px, width, data.images.shape[1], data.classes)
        rows.append({"name": f"{architecture} {resolution_px} px", **fit_cnn(spec, data, seed=seed)})
        file.write_text(json.dumps(rows, indent=1))


def fit_cnn(spec: CNNSpec, data: ImageSet, *, seed: int) -> dict[str, float]:
    """Train one CNN, keep the weights of the least validation loss, and return validation loss and test scores."""
    pixels = data.in_memory()
    train, val, test = (data.members(split) for split in SPLITS)
    torch.manual_seed(seed)
    network, generator = spec.build(), Generator().manual_seed(seed)
    adam = Adam(network.parameters(), learning_rate=CNN_LEARNING_RATE)
    best, kept = float("inf"), {}
    small = shrink(pixels, spec.resolution_px)

    @torch.inference_mode()
    def log_probs(images: Tensor) -> Tensor:
        network.eval()
        return torch.cat([network(small, rows).log_softmax(-1) for rows in images.split(256)])

    for iteration in range(1, CNN_ITERATIONS + 1):
        batch = train[torch.randint(len(train), (BATCH,), generator=generator)]
        views = shrink(augment(pixels[batch], generator), spec.resolution_px)
        network.train()
        adam.zero_grad()
        F.cross_entropy(network(views), data.labels[batch]).backward()
        adam.step()
        if iteration % EVERY == 0:
            loss = F.nll_loss(log_probs(val), data.labels[val]).item()
            if loss < best:
                best, kept = loss, {key: value.clone() for key, value in network.state_dict().items()}
    network.load_state_dict(kept)
    frequencies = class_frequencies(data.labels[train], len(data.classes))
    tested = scores(log_probs(test), data.labels[test], frequencies=frequencies)
    return {"validation_nll_nats": best, **tested._asdict()}


def augment(images: Tensor, generator: Generator) -> Tensor:
    """Return images that are shifted by up to `SHIFT` pixels each way, and half of them mirrored."""
    n, _, side, _ = images.shape
    padded = F.pad(images.float(), (SHIFT,) * 4, mode="replicate").to(torch.uint8)
    moves = torch.randint(2 * SHIFT + 1, (n, 2), generator=generator).tolist()
    mirrored = (torch.rand(n, generator=generator) < 0.5).tolist()
    views = [image[:, y : y + side, x : x + side] for image, (y, x) in zip(padded, moves, strict=True)]
    return torch.stack([view.flip(-1) if flip else view for view, flip in zip(views, mirrored, strict=True)])


def rows(out: Path) -> Iterator[list[str]]:
    """Return a row for each method on each table: test accuracy, balanced accuracy, and choice on validation."""
    for task in TASKS:
        for labelled in LABELLED:
            for at in sorted(out.glob(f"{task}-draw*-n{labelled}")):
                yield from of_table(at, [task, str(labelled), at.name.split("-")[1]])


def of_table(at: Path, head: list[str]) -> Iterator[list[str]]:
    """Return the rows of one table."""
    for name in ("all", "labelled"):
        file = at / name / "evaluation" / "results.json"
        if not file.exists():
            continue
        results = json.loads(file.read_text())
        for method, figures in results["methods"].items():
            tested = [figures[f"test_{key}"][0] for key in ("accuracy", "equal_prior_balanced_accuracy", "auroc")]
            yield [*head, f"{method} ({name})", *percent(tested), f"{figures['best_validation_nll_nats'][0]:.3f}"]
        if name == "all":
            linear = results["linear"]
            tested = [linear[f"test_{key}"] for key in ("accuracy", "equal_prior_balanced_accuracy", "auroc")]
            yield [*head, "logistic regression", *percent(tested), ""]
        for key in ("nll_nats_by_glimpse", "random_nll_nats_by_glimpse"):
            losses = ", ".join(f"{loss:.3f}" for loss in results["sequences"][key])
            yield [*head, f"posterior ({name}), {key}", losses, results["sequences"]["worth"], "", ""]
    if (at / "cnns.json").exists():
        best = min(json.loads((at / "cnns.json").read_text()), key=lambda row: row["validation_nll_nats"])
        tested = [best[key] for key in ("accuracy", "equal_prior_balanced_accuracy", "auroc")]
        yield [*head, f"CNN: {best['name']}", *percent(tested), f"{best['validation_nll_nats']:.3f}"]


def percent(shares: list[float]) -> list[str]:
    return [f"{100 * share:.1f}" for share in shares]


def main() -> None:
    what, *rest = sys.argv[1:]
    if what == "draw":
        draw(Path(rest[0]), Path(rest[1]), int(rest[2]))
    elif what == "train":
        train(Path(rest[0]), int(rest[1]), int(rest[2]), rest[3])
    else:
        print(
            "| label | labels | draw | method | test accuracy, % | balanced at equal prior | AUROC | validation nats |"
        )
        print("|---|---|---|---|---|---|---|---|")
        for row in rows(Path(rest[0])):
            print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
