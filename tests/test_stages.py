"""The stages, from Python: what each leaves on disk, what it refuses, and that it repeats itself."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nogs
import nogs.stages.search
from nogs.completion.protocol import Completions
from nogs.completion.retrieval import Retrieval
from nogs.data import ImageSet
from nogs.rundir import RunDirectory
from nogs.sequences import load_sequences
from tiny import CLASSES, GLIMPSE_PX, IMAGE_PX, STRIDE_PX, T, write_npz

GEOMETRY = nogs.Geometry(glimpse_size=GLIMPSE_PX, stride=STRIDE_PX, glimpses=T)
LOCATIONS, ANNOTATED, TESTED = 9, 30, 30
RETRIEVAL = nogs.RetrievalOptions(completions=16, proposals=32, shift=1)


def silent(done: int, note: str) -> None:
    pass


class Stages:
    """All stages on one set of images, in one folder, each with a few defaults."""

    def __init__(self, folder: Path, npz: Path, task: str | None = None) -> None:
        self.folder, self.source = folder, nogs.Source(data=f"npz:{npz}", task=task)

    def machine(self, name: str, *, resume: bool = False) -> nogs.Machine:
        return nogs.Machine(self.folder / name, resume=resume, device="cpu")

    def posterior(self, name: str = "posterior", *, iterations: int = 60, **how: Any) -> RunDirectory:
        optimisation = nogs.Optimisation(iterations=iterations, batch_size=32, validate_every=20)
        config = nogs.FitPosterior(
            self.machine(name), self.source, GEOMETRY, optimisation=optimisation, annotate=ANNOTATED
        )
        return nogs.fit_posterior(replace(config, **how), silent)

    def bank(self, name: str = "bank", **how: Any) -> RunDirectory:
        return nogs.build_bank(replace(nogs.BuildBank(self.machine(name), self.source, components=16), **how), silent)

    def search(self, name: str = "sequences", *, posterior: str = "posterior", **how: Any) -> RunDirectory:
        config = nogs.Search(
            self.machine(name), self.folder / posterior, self.folder / "bank", retrieval=RETRIEVAL, first=32
        )
        return nogs.search(replace(config, **how), silent)

    def train(self, name: str, method: str, *, seed: int = 0, iterations: int = 60, **how: Any) -> RunDirectory:
        optimisation = nogs.Optimisation(iterations=iterations, batch_size=32, validate_every=20, seed=seed)
        sequences = self.folder / "sequences" if method != "ram" else None
        config = nogs.Train(
            self.machine(name), self.source, GEOMETRY, optimisation, method=method, sequences=sequences, hidden=32
        )
        return nogs.train(replace(config, **how), silent)

    def evaluate(self, name: str, *models: str, **how: Any) -> RunDirectory:
        paths = tuple(self.folder / model for model in models)
        config = nogs.Evaluate(self.machine(name), paths, self.folder / "sequences", examples=4)
        return nogs.evaluate(replace(config, **how), silent)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """All stages, run: two methods, RAM with two seeds in the order 1, 0."""
    folder = tmp_path_factory.mktemp("stages")
    made = Stages(folder, write_npz(folder / "images.npz"))
    made.posterior()
    made.bank()
    made.search()
    made.train("ram-1", "ram", seed=1)
    made.train("ram-0", "ram")
    made.train("nogs-0", "ps-nogs")
    made.evaluate("evaluation", "ram-1", "ram-0", "nogs-0")
    return made


@pytest.fixture
def again(stages: Stages, tmp_path: Path) -> Stages:
    """A copy of the finished runs, to be broken; they still name the originals as their input."""
    copy = Stages(tmp_path / "copy", Path(stages.source.data.removeprefix("npz:")))
    shutil.copytree(stages.folder, copy.folder)
    return copy


def run_of(stages: Stages, name: str) -> RunDirectory:
    return RunDirectory(stages.folder / name)


def rows_but_time(run: RunDirectory) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in run.rows()]


def same_bits(one: RunDirectory, other: RunDirectory, *names: str) -> bool:
    return all((one.path / name).read_bytes() == (other.path / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    ("name", "stage", "files"),
    [
        ("posterior", "fit-posterior", {"model.safetensors", "best.safetensors", "log.jsonl"}),
        ("bank", "build-bank", {"bank.safetensors"}),
        ("sequences", "search", {"sequences.safetensors", "log.jsonl"}),
        ("ram-0", "train", {"model.safetensors", "best.safetensors", "log.jsonl"}),
        ("nogs-0", "train", {"model.safetensors", "best.safetensors", "log.jsonl"}),
        (
            "evaluation",
            "evaluate",
            {"results.json", "examples.safetensors", *(f"{m}.safetensors" for m in ("ram-seed1", "ps-nogs-seed0"))},
        ),
    ],
)
def test_a_stage_leaves_its_files_and_the_marker_last(stages: Stages, name: str, stage: str, files: set[str]) -> None:
    run = run_of(stages, name)
    written = {file.name: file.stat().st_mtime_ns for file in run.path.iterdir()}
    assert files | {"config.json", "provenance.json", "COMPLETE"} <= written.keys()
    assert written["COMPLETE"] == max(written.values())
    assert not [file for file in written if file.endswith((".partial", ".pt", ".pkl"))]
    assert run.config["stage"] == stage
    provenance = json.loads((run.path / "provenance.json").read_text())
    assert {"started", "finished", "versions", "platform", "inputs"} <= provenance.keys()
    assert all(len(digest) == 64 for digest in provenance["inputs"].values())


def test_a_log_has_a_row_a_validation(stages: Stages) -> None:
    for name in ("posterior", "ram-0"):
        rows = run_of(stages, name).rows()
        assert [row["iteration"] for row in rows] == [20, 40, 60]
        assert all({"seconds", "train_loss", "nll_nats"} <= row.keys() for row in rows)
        assert 0 < rows[0]["seconds"] < rows[1]["seconds"] < rows[2]["seconds"]
    assert sum(row["posterior_evaluations"] for row in run_of(stages, "sequences").rows()) % LOCATIONS == 0


def test_sequences_are_of_training_images_and_never_look_twice(stages: Stages) -> None:
    sequences, data = load_sequences(run_of(stages, "sequences")), nogs.load(stages.source)
    assert sequences.cells.shape == (ANNOTATED, T)
    assert sequences.eig.shape == sequences.epe.shape == (ANNOTATED, T, LOCATIONS)
    assert set(sequences.images.tolist()) <= set(data.members("train").tolist())
    assert len(sequences.images.unique()) == ANNOTATED
    assert (sequences.cells[:, 0] == sequences.cells[0, 0]).all()  # nothing was seen yet: the first is shared
    assert (sequences.cells[:, 0] != sequences.cells[:, 1]).all()
    assert sequences.cells[:, 1].unique().numel() > 1
    chosen = sequences.eig[:, 1].gather(1, sequences.cells[:, 1:])[:, 0]
    unvisited = sequences.eig[:, 1].scatter(1, sequences.cells[:, :1], -torch.inf)
    assert torch.equal(chosen, unvisited.max(1).values)


Shape = Callable[[Any], bool]


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def share(value: Any) -> bool:
    return number(value) and 0 <= value <= 1


def maybe(shape: Shape) -> Shape:
    return lambda value: value is None or shape(value)


def list_of(count: int, shape: Shape) -> Shape:
    return lambda value: isinstance(value, list) and len(value) == count and all(map(shape, value))


def by_glimpse(shape: Shape) -> Shape:
    return list_of(T, shape)


CONTRACT: dict[str, Any] = {
    "schema": lambda value: value == 1,
    "data": lambda value: value.startswith("npz:"),
    "task": lambda value: value is None,
    "classes": lambda value: value == list(CLASSES),
    "target_nll_nats": number,
    "posterior": {
        "seconds": number,
        "nll_nats_by_glimpse": by_glimpse(number),
        "accuracy_by_glimpse": by_glimpse(share),
    },
    "sequences": {
        "count": lambda value: value == ANNOTATED,
        "seconds": number,
        "posterior_evaluations": lambda value: isinstance(value, int) and value > 0,
        "nll_nats_by_glimpse": by_glimpse(number),
        "random_nll_nats_by_glimpse": by_glimpse(number),
    },
}
"""shared/contract.md, word by word. ``methods`` is checked for every method."""


def of_method(seeds: int) -> dict[str, Shape]:
    return {
        "seeds": list_of(seeds, number),
        "iterations_to_converge": list_of(seeds, number),
        "seconds_to_converge": list_of(seeds, number),
        "iterations_to_target": list_of(seeds, maybe(number)),
        "seconds_to_target": list_of(seeds, maybe(number)),
        "test_accuracy": list_of(seeds, share),
        "test_balanced_accuracy": list_of(seeds, share),
        "test_nll_nats": list_of(seeds, number),
        "test_accuracy_by_glimpse": list_of(seeds, by_glimpse(share)),
        "macs_by_glimpse": by_glimpse(lambda value: isinstance(value, int) and value > 0),
    }


BEYOND = {
    "posterior": {"calibration_error_by_glimpse"},
    "sequences": {
        "accuracy_by_glimpse",
        "random_accuracy_by_glimpse",
        "random_calibration_error_by_glimpse",
        "calibration_error_by_glimpse",
        "effective_sample_size_by_glimpse",
    },
    "methods": {"sampled_test_accuracy", "best_validation_nll_nats"},
}
"""Keys that the contract does not have; it lets us add some, but none by accident."""


def check(found: dict[str, Any], shapes: dict[str, Shape], beyond: set[str]) -> None:
    assert found.keys() == shapes.keys() | beyond
    for key, shape in shapes.items():
        assert shape(found[key]), f"{key}: {found[key]}"


def test_results_have_the_keys_and_shapes_of_the_contract(stages: Stages) -> None:
    results = json.loads((stages.folder / "evaluation" / "results.json").read_text())
    assert results.keys() == CONTRACT.keys() | {"methods"}
    for key, shape in CONTRACT.items():
        if isinstance(shape, dict):
            check(results[key], shape, BEYOND[key])
        else:
            assert shape(results[key]), f"{key}: {results[key]}"
    assert results["methods"].keys() == {"ram", "ps-nogs"}
    for name, seeds in (("ram", [1, 0]), ("ps-nogs", [0])):
        check(results["methods"][name], of_method(len(seeds)), BEYOND["methods"])
        assert results["methods"][name]["seeds"] == seeds


def test_results_are_what_the_runs_logged_and_the_evaluation_recorded(stages: Stages) -> None:
    evaluation = run_of(stages, "evaluation")
    results = json.loads((evaluation.path / "results.json").read_text())
    data = nogs.load(stages.source)
    best = [min(row["nll_nats"] for row in run_of(stages, name).rows()) for name in ("ram-1", "ram-0")]
    assert results["target_nll_nats"] == pytest.approx(sum(best) / 2 + 0.01)
    for place, (name, record) in enumerate((("ram", "ram-seed1"), ("ram", "ram-seed0"), ("ps-nogs", "ps-nogs-seed0"))):
        seen = evaluation.load_tensors(record)
        scores, which = results["methods"][name], place % 2
        assert torch.equal(seen["images"], data.members("test"))
        assert torch.equal(seen["labels"], data.labels[data.members("test")])
        assert seen["cells"].shape == (TESTED, T)
        assert seen["log_probs"].shape == (TESTED, T, len(CLASSES))
        probs, labels = seen["log_probs"].exp().numpy(), seen["labels"].numpy()
        assert probs.sum(-1) == pytest.approx(1, abs=1e-5)
        right = probs.argmax(-1) == labels[:, None]
        assert scores["test_accuracy_by_glimpse"][which] == pytest.approx(right.mean(0).tolist())
        assert scores["test_accuracy"][which] == pytest.approx(right[:, -1].mean())
        by_class = [right[labels == c, -1].mean() for c in range(len(CLASSES))]
        assert scores["test_balanced_accuracy"][which] == pytest.approx(np.mean(by_class))
        nll = -np.log(probs[np.arange(TESTED), -1, labels]).mean()
        assert scores["test_nll_nats"][which] == pytest.approx(nll, rel=1e-4)
    seconds = [row["seconds"] for row in run_of(stages, "sequences").rows()]
    assert results["sequences"]["seconds"] == pytest.approx(sum(seconds))


def test_learning_is_learning(stages: Stages, tmp_path: Path) -> None:
    """Chance is 1/3 right; three standard deviations of that over 30 images are under 0.6."""
    longer = stages.train(str(tmp_path / "longer"), "ps-nogs", iterations=200)
    evaluation = stages.evaluate(str(tmp_path / "judged"), str(longer.path))
    results = json.loads((evaluation.path / "results.json").read_text())
    assert results["methods"]["ps-nogs"]["test_accuracy"][0] > 0.6
    assert results["target_nll_nats"] is None  # there is no RAM to race against
    assert results["methods"]["ps-nogs"]["iterations_to_target"] == [None]


def test_the_same_command_gives_the_same_bits(stages: Stages, tmp_path: Path) -> None:
    for name, once_more, file in (
        ("posterior", stages.posterior(str(tmp_path / "p")), "model.safetensors"),
        ("bank", stages.bank(str(tmp_path / "b")), "bank.safetensors"),
        ("sequences", stages.search(str(tmp_path / "s")), "sequences.safetensors"),
        ("ram-1", stages.train(str(tmp_path / "r"), "ram", seed=1), "model.safetensors"),
        ("nogs-0", stages.train(str(tmp_path / "n"), "ps-nogs"), "model.safetensors"),
    ):
        assert same_bits(run_of(stages, name), once_more, file), name
        assert rows_but_time(run_of(stages, name)) == rows_but_time(once_more)
    evaluation = stages.evaluate(str(tmp_path / "e"), "ram-1", "ram-0", "nogs-0")
    records = ("ram-seed1.safetensors", "ps-nogs-seed0.safetensors", "examples.safetensors", "results.json")
    assert same_bits(run_of(stages, "evaluation"), evaluation, *records)
    assert not same_bits(run_of(stages, "ram-1"), run_of(stages, "ram-0"), "model.safetensors")  # seeds do matter


def test_a_finished_stage_is_not_run_again(stages: Stages) -> None:
    def state() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in sorted(stages.folder.rglob("*"))}

    before = state()
    stages.posterior(machine=stages.machine("posterior", resume=True))
    stages.bank(machine=stages.machine("bank", resume=True))
    stages.search(machine=stages.machine("sequences", resume=True))
    stages.train("ram-0", "ram", machine=stages.machine("ram-0", resume=True))
    for rerun in (stages.posterior, stages.bank, stages.search, lambda: stages.train("ram-0", "ram")):
        with pytest.raises(nogs.UserError, match="holds another run: add --resume"):
            rerun()
    with pytest.raises(nogs.UserError, match=r"--iterations \(had 60, now 80\)"):
        stages.train("ram-0", "ram", iterations=80, machine=stages.machine("ram-0", resume=True))
    assert state() == before


def test_the_posterior_never_sees_images_that_get_sequences_nor_test_images(stages: Stages, tmp_path: Path) -> None:
    """Paint over all of them, and the posterior is the same to the bit; over any other image, and it is not."""
    npz = stages.source.data.removeprefix("npz:")
    arrays = dict(np.load(npz))
    annotated = load_sequences(run_of(stages, "sequences")).images.numpy()
    for name, painted, same in (
        ("unseen", np.concatenate((annotated, np.flatnonzero(arrays["split"] == "test"))), True),
        ("seen", np.setdiff1d(np.flatnonzero(arrays["split"] == "train"), annotated)[:1], False),
    ):
        x = arrays["x"].copy()
        x[painted] = 255 - x[painted]
        np.savez(tmp_path / f"{name}.npz", **{**arrays, "x": x})
        fitted = Stages(tmp_path, tmp_path / f"{name}.npz").posterior(name)
        assert same_bits(run_of(stages, "posterior"), fitted, "model.safetensors") == same


@pytest.mark.parametrize("each", [1, 5])
def test_no_image_is_completed_by_its_own_group(
    stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, each: int
) -> None:
    """Groups of one and of five; the bank holds every one of these images, and would be glad to offer it."""
    data = nogs.load(stages.source)
    grouped = replace(data, groups=torch.arange(len(data)) // each)
    group_of = {image.numpy().tobytes(): int(group) for image, group in zip(data.images, grouped.groups, strict=True)}
    assert len(group_of) == len(data)
    complete, asked = Retrieval.__call__, 0

    def load(source: nogs.Source) -> ImageSet:
        return grouped

    def watched(self: Retrieval, seen: Any, *, groups: torch.Tensor, generator: torch.Generator) -> Completions:
        nonlocal asked
        found = complete(self, seen, groups=groups, generator=generator)
        for image, owner in zip(found.images, found.owners.tolist(), strict=True):
            known = image.numpy().tobytes()
            whose = group_of[known] if known in group_of else group_of[image.flip(-1).numpy().tobytes()]
            assert whose != groups[owner]
            asked += 1
        return found

    monkeypatch.setattr(nogs.stages.search, "load", load)
    monkeypatch.setattr(Retrieval, "__call__", watched)
    unshifted = replace(RETRIEVAL, shift=0)
    stages.search(str(tmp_path / "sequences"), retrieval=unshifted)
    assert asked > ANNOTATED


@pytest.mark.parametrize("consumer", ["search", "train", "evaluate"])
def test_an_unfinished_run_is_no_input(again: Stages, tmp_path: Path, consumer: str) -> None:
    consume: dict[str, tuple[str, Callable[[str], RunDirectory]]] = {
        "search": ("posterior", lambda out: again.search(out)),
        "train": ("sequences", lambda out: again.train(out, "ps-nogs")),
        "evaluate": ("ram-0", lambda out: again.evaluate(out, "ram-0")),
    }
    needed, stage = consume[consumer]
    (again.folder / needed / "COMPLETE").unlink()
    with pytest.raises(nogs.UserError, match=f"{needed} is not finished: run its `nogs .*` again with --resume"):
        stage(str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_run_of_another_kind_is_no_input(stages: Stages, tmp_path: Path) -> None:
    wrong: list[tuple[str, Callable[[str], RunDirectory]]] = [
        ("bank is a run directory of `nogs build-bank`", lambda out: stages.search(out, posterior="bank")),
        ("posterior is .* not of `nogs build-bank`", lambda out: stages.search(out, bank=stages.folder / "posterior")),
        ("bank is .* not of `nogs search`", lambda out: stages.train(out, "ps-nogs", sequences=stages.folder / "bank")),
        ("sequences is .* not of `nogs train`", lambda out: stages.evaluate(out, "sequences")),
        ("stages.* is not a run directory", lambda out: stages.evaluate(out, ".")),
        ("needs? .*--sequences|give --sequences", lambda out: stages.train(out, "ps-nogs", sequences=None)),
    ]
    for complaint, stage in wrong:
        with pytest.raises(nogs.UserError, match=complaint):
            stage(str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()


def test_runs_that_do_not_go_together_are_refused(stages: Stages, tmp_path: Path) -> None:
    other = Stages(stages.folder, write_npz(tmp_path / "other.npz"))
    coarser = replace(GEOMETRY, stride=10)
    out = str(tmp_path / "out")
    wrong: list[tuple[str, Callable[[], RunDirectory]]] = [
        (r"--stride \(had 5, now 10\)", lambda: stages.train(out, "ps-nogs", geometry=coarser)),
        (r"--glimpses \(had 2, now 1\)", lambda: stages.train(out, "ps-nogs", geometry=replace(GEOMETRY, glimpses=1))),
        (r"--data \(had npz:.*images.npz, now npz:.*other.npz\)", lambda: other.train(out, "ps-nogs")),
        ("seed 0: give one", lambda: stages.evaluate(out, "ram-0", "ram-0")),
        ("--models: give at least one", lambda: stages.evaluate(out)),
    ]
    for complaint, stage in wrong:
        with pytest.raises(nogs.UserError, match=complaint):
            stage()
        assert not (tmp_path / "out").exists()
    other.bank(str(tmp_path / "bank"))
    with pytest.raises(nogs.UserError, match="build them from the same images"):
        stages.search(out, bank=tmp_path / "bank")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """A posterior over two labels at once, and a bank."""
    folder = tmp_path_factory.mktemp("many")
    made = Stages(folder, write_npz(folder / "labels.npz", multilabel=True))
    made.posterior()
    made.bank()
    return made


def test_one_posterior_of_many_labels_serves_a_task(many: Stages) -> None:
    search = many.search("sequences", task="across")
    assert load_sequences(search).cells.shape == (ANNOTATED, T)
    one = Stages(many.folder, many.folder / "labels.npz", task="across")
    trained = one.train("trained", "ps-nogs")
    assert trained.load_metadata("model")["classes"] == ["not across", "across"]
    results = json.loads((one.evaluate("evaluation", "trained").path / "results.json").read_text())
    assert results["task"] == "across"
    assert results["classes"] == ["not across", "across"]
    assert len(results["sequences"]["nll_nats_by_glimpse"]) == T
    striped = Stages(many.folder, many.folder / "labels.npz", task="striped")
    with pytest.raises(nogs.UserError, match=r"--task \(had across, now striped\)"):
        striped.train("never", "ps-nogs")


def test_tasks_are_asked_for_by_name(many: Stages, stages: Stages) -> None:
    out = "never"
    wrong: list[tuple[str, Callable[[], RunDirectory]]] = [
        ("choose one of striped, across", lambda: many.search(out)),
        ("--task bald: .*choose one of striped, across", lambda: many.search(out, task="bald")),
        ("choose --task among striped, across", lambda: many.train(out, "ram")),
        ("leave --task out", lambda: stages.search(out, task="across")),
    ]
    for complaint, stage in wrong:
        with pytest.raises(nogs.UserError, match=complaint):
            stage()
        assert not (many.folder / out).exists()
        assert not (stages.folder / out).exists()


def test_the_papers_posterior_and_criterion_find_sequences_too(stages: Stages, tmp_path: Path) -> None:
    network = nogs.PosteriorNetwork(posterior="avp-cnn")
    fitted = stages.posterior(str(tmp_path / "avp"), iterations=20, network=network)
    search = stages.search(str(tmp_path / "found"), posterior=str(fitted.path), criterion="epe")
    found = load_sequences(search)
    assert found.cells.shape == (ANNOTATED, T)
    chosen = found.epe[:, 1].gather(1, found.cells[:, 1:])[:, 0]
    assert torch.equal(chosen, found.epe[:, 1].scatter(1, found.cells[:, :1], torch.inf).min(1).values)
    stages.train(str(tmp_path / "trained"), "ps-nogs", iterations=20, sequences=search.path)
    judged = stages.evaluate(str(tmp_path / "judged"), str(tmp_path / "trained"), sequences=search.path)
    assert (judged.path / "results.json").exists()


def test_one_glimpse_is_enough(stages: Stages, tmp_path: Path) -> None:
    """T = 1: nothing is ever completed."""
    once = replace(GEOMETRY, glimpses=1)
    stages.posterior(str(tmp_path / "p"), iterations=20, geometry=once)
    search = stages.search(str(tmp_path / "s"), posterior=str(tmp_path / "p"))
    assert load_sequences(search).cells.shape == (ANNOTATED, 1)
    stages.train(str(tmp_path / "t"), "ps-nogs", iterations=20, geometry=once, sequences=search.path)
    judged = stages.evaluate(str(tmp_path / "e"), str(tmp_path / "t"), sequences=search.path)
    results = json.loads((judged.path / "results.json").read_text())
    assert len(results["methods"]["ps-nogs"]["macs_by_glimpse"]) == 1
    assert results["sequences"]["posterior_evaluations"] == 0
    for row in search.path.joinpath("log.jsonl").read_text().splitlines():
        json.loads(row, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))


def test_predictions_are_the_recorded_ones(stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    data, record = nogs.load(stages.source), run_of(stages, "evaluation").load_tensors("ps-nogs-seed0")
    files = [tmp_path / f"{place}.png" for place in range(5)]
    for file, image in zip(files, record["images"].tolist(), strict=False):
        Image.fromarray(data.images[image, 0].numpy()).save(file)
    nogs.predict(nogs.Predict(stages.folder / "nogs-0", tuple(files), json=True, device="cpu"))
    for place, line in enumerate(capsys.readouterr().out.splitlines()):
        said = json.loads(line)
        assert list(said["probs"].values()) == pytest.approx(record["log_probs"][place, -1].exp().tolist(), abs=1e-5)
        row, column = np.divmod(record["cells"][place].numpy(), IMAGE_PX // STRIDE_PX)
        assert said["glimpses"] == (STRIDE_PX * np.stack((row, column), 1)).tolist()
    assert place == len(files) - 1
