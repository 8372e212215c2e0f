"""The stages, from Python: what each leaves on disk, that it repeats itself, and that it learns."""

from __future__ import annotations

import json
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
from nogs.sequences.table import load_sequences
from staged import ANNOTATED, GEOMETRY, LOCATIONS, RETRIEVAL, Stages, rows_but_time, run_of, same_bits
from tiny import IMAGE_PX, STRIDE_PX, T


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
        assert all(row["seconds"] < row["wall_seconds"] for row in rows)


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


def test_a_race_logs_its_evaluations_and_its_regret(stages: Stages, tmp_path: Path) -> None:
    """Beside exhaustive search of the same images; exhaustive search itself loses nothing."""
    for strategy in ("race", "exhaustive"):
        search = stages.search(str(tmp_path / strategy), strategy=strategy, regret=ANNOTATED)
        lost = torch.tensor(json.loads((search.path / "regret.json").read_text())["regret_nats_by_glimpse"])
        assert lost.shape == (T - 1, ANNOTATED)
        assert lost.min() > -1e-5
        evaluated, exhaustive = (
            sum(row[key] for row in search.rows()[1:]) for key in ("posterior_evaluations", "exhaustive_evaluations")
        )
        assert exhaustive % LOCATIONS == 0
        if strategy == "race":
            assert evaluated < exhaustive
        else:
            assert evaluated == exhaustive
            assert lost.max() < 1e-5
    assert not (run_of(stages, "sequences").path / "regret.json").exists()


def test_fully_pooled_sequences_are_one_path(stages: Stages, tmp_path: Path) -> None:
    search = stages.search(str(tmp_path / "pooled"), pooling=1.0)
    found = load_sequences(search)
    assert (found.cells == found.cells[0]).all()
    assert found.eig is not None
    for t in range(1, T):
        mean = found.eig[:, t].mean(0).scatter(0, found.cells[0, :t], -torch.inf)
        assert int(found.cells[0, t]) == int(mean.argmax())
        assert not torch.equal(found.eig[0, t], found.eig[1, t])  # the maps are still each image's own


def test_learning_is_learning(stages: Stages, tmp_path: Path) -> None:
    """Chance is 1/3 right; three standard deviations of that over 30 images are under 0.6."""
    longer = stages.train(str(tmp_path / "longer"), "ps-nogs", iterations=200)
    evaluation = stages.evaluate(str(tmp_path / "judged"), str(longer.path))
    results = json.loads((evaluation.path / "results.json").read_text())
    assert results["methods"]["ps-nogs"]["test_accuracy"][0] > 0.6
    assert results["target_nll_nats"] is None  # there is no RAM to race against
    assert results["methods"]["ps-nogs"]["iterations_to_target"] == [None]


def test_a_training_starts_from_the_weights_of_another(stages: Stages) -> None:
    """One step with a tiny step size leaves them where they are, whatever the seed."""
    start = run_of(stages, "ram-0")
    optimisation = nogs.Optimisation(iterations=1, batch_size=32, learning_rate=1e-9, validate_every=1, seed=3)
    run = stages.train("started", "ram", start=start.path, optimisation=optimisation)
    for name, value in start.load_tensors("model").items():
        torch.testing.assert_close(run.load_tensors("model")[name], value, rtol=0, atol=1e-8)
    assert run.provenance["inputs"][str(start.path)] == start.hash_of("model.safetensors")


def test_initial_weights_are_those_of_the_option(stages: Stages) -> None:
    """After one step with a tiny step size the biases of the embedding are 0 to within that."""
    optimisation = nogs.Optimisation(iterations=1, batch_size=32, learning_rate=1e-9, validate_every=1)
    for initial, zero in (("he", True), ("torch", False)):
        network = nogs.AttentionNetwork(32, initial=initial)
        run = stages.train(f"initial-{initial}", "ram", network=network, optimisation=optimisation)
        assert (run.load_tensors("model")["embedding.where.0.bias"].abs().max().item() < 1e-8) == zero


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
        with pytest.raises(nogs.UserError, match="holds another run: add resume=True"):
            rerun()
    with pytest.raises(nogs.UserError, match=r"`iterations` \(had 60, now 40\)"):
        stages.train("ram-0", "ram", iterations=40, machine=stages.machine("ram-0", resume=True))
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
    complete, calls = Retrieval.__call__, 0

    def load(source: nogs.Source) -> ImageSet:
        return grouped

    def watched(self: Retrieval, seen: Any, *, groups: torch.Tensor, generator: torch.Generator) -> Completions:
        nonlocal calls
        found = complete(self, seen, groups=groups, generator=generator)
        for image, owner in zip(found.images, found.owners.tolist(), strict=True):
            known = image.numpy().tobytes()
            whose = group_of[known] if known in group_of else group_of[image.flip(-1).numpy().tobytes()]
            assert whose != groups[owner]
            calls += 1
        return found

    monkeypatch.setattr(nogs.stages.search, "load", load)
    monkeypatch.setattr(Retrieval, "__call__", watched)
    unshifted = replace(RETRIEVAL, shift=0)
    stages.search(str(tmp_path / "sequences"), retrieval=unshifted)
    assert calls > ANNOTATED


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
    search = stages.search(str(tmp_path / "s"), posterior=str(tmp_path / "p"), strategy="exhaustive")
    assert load_sequences(search).cells.shape == (ANNOTATED, 1)
    stages.train(str(tmp_path / "t"), "ps-nogs", iterations=20, geometry=once, sequences=search.path)
    judged = stages.evaluate(str(tmp_path / "e"), str(tmp_path / "t"), sequences=search.path)
    results = json.loads((judged.path / "results.json").read_text())
    assert len(results["methods"]["ps-nogs"]["macs_by_glimpse"]) == 1
    # Nothing but the first map: --first completions, at every location.
    assert results["sequences"]["posterior_evaluations"] == search.config["first"] * LOCATIONS
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
        answer = json.loads(line)
        assert list(answer["probs"].values()) == pytest.approx(record["log_probs"][place, -1].exp().tolist(), abs=1e-5)
        row, column = np.divmod(record["cells"][place].numpy(), IMAGE_PX // STRIDE_PX)
        assert answer["glimpses"] == (STRIDE_PX * np.stack((row, column), 1)).tolist()
    assert place == len(files) - 1
