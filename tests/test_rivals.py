"""Every method as a run of `nogs train`: it is trained with the objective and the sequences of its row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import nogs
from nogs.attention.choosers import greedy, sampling
from nogs.attention.classify import look_at_all
from nogs.attention.methods import METHODS
from nogs.attention.network import HardAttention
from nogs.glimpses.fovea import look
from nogs.glimpses.grid import Grid
from nogs.runs.device import chance
from nogs.runs.directory import RunDirectory, open_run
from nogs.runs.identity import as_json
from nogs.runs.marker import write_marker
from nogs.sequences.table import Sequences, load_sequences, made_for, save_sequences
from nogs.specs import HardAttentionSpec
from nogs.weights import load_network
from tiny import GLIMPSE_PX, IMAGE_PX, STRIDE_PX, T, write_npz

GEOMETRY = nogs.Geometry(glimpse_size=GLIMPSE_PX, stride=STRIDE_PX, glimpses=T)
LOCATIONS, ANNOTATED, HIDDEN = 9, 30, 32


def silent(done: int, note: str) -> None:
    pass


class Rivals:
    """One set of images, and trainings on it."""

    def __init__(self, folder: Path, npz: Path) -> None:
        self.folder, self.source = folder, nogs.Source(data=f"npz:{npz}")

    def machine(self, name: str) -> nogs.Machine:
        return nogs.Machine(self.folder / name, device="cpu")

    def train(self, name: str, method: str, *, iterations: int = 40, **how: Any) -> RunDirectory:
        config = nogs.Train(
            self.machine(name),
            self.source,
            GEOMETRY,
            nogs.Optimisation(iterations=iterations, batch_size=32, validate_every=20),
            method=method,
            network=nogs.AttentionNetwork(HIDDEN),
        )
        return nogs.train(replace(config, **how), silent)

    def record(self, name: str, model: str, **how: Any) -> RunDirectory:
        config = nogs.Record(self.machine(name), self.folder / model, annotate=ANNOTATED)
        return nogs.record(replace(config, **how), silent)

    def imported(self, name: str, stage: str = "sequences import") -> RunDirectory:
        """Sequences as another stage would leave them: always the second cell, then the third."""
        images = nogs.load(self.source).annotated(ANNOTATED, 0)
        run = open_run(self.folder / name, stage, self.source, resume=False)
        cells = torch.tensor([[1, 2]]).expand(len(images), -1)
        save_sequences(
            run,
            "sequences",
            Sequences(images, cells),
            source=as_json(self.source),
            geometry=as_json(GEOMETRY),
            task=None,
            origin=stage,
        )
        run.finish()
        return run


@pytest.fixture(scope="module")
def rivals(tmp_path_factory: pytest.TempPathFactory) -> Rivals:
    folder = tmp_path_factory.mktemp("rivals")
    made = Rivals(folder, write_npz(folder / "images.npz"))
    made.train("ram", "ram")
    made.record("recorded", "ram")
    made.imported("imported")
    return made


def sequences_of(rivals: Rivals, method: str) -> Path | None:
    runs = {"none": None, "record": rivals.folder / "recorded"}
    return runs.get(METHODS[method].sequences, rivals.folder / "imported")


def network_of(run: RunDirectory, name: str = "model") -> tuple[HardAttentionSpec, HardAttention]:
    return load_network(run, name, kind=HardAttentionSpec, device=torch.device("cpu"))


def untrained() -> HardAttention:
    """The initial weights of every training with seed 0."""
    torch.manual_seed(0)
    grid = Grid(IMAGE_PX, GLIMPSE_PX, STRIDE_PX)
    return HardAttention(grid, channels=1, classes=3, hidden=HIDDEN)


@pytest.mark.parametrize("method", METHODS)
def test_each_row_teaches_the_parts_that_it_says(rivals: Rivals, tmp_path: Path, method: str) -> None:
    row = METHODS[method]
    run = rivals.train(str(tmp_path / "out"), method, iterations=20, sequences=sequences_of(rivals, method))
    spec, network = network_of(run)
    assert spec.glimpses == T
    assert spec.method == method
    assert spec.path == ((1, 2) if row.looks == "path" else None)
    start, moved = untrained().state_dict(), set[str]()
    for name, value in network.state_dict().items():
        if not torch.equal(value, start[name]):
            moved.add(name.split(".")[0])
    assert {"embedding", "core", "classifier"} <= moved
    assert ("locator" in moved) == (row.policy != "none")
    assert ("baseline" in moved) == (row.policy in ("reinforce", "act"))
    assert run.load_tensors("model").keys() == start.keys()  # nothing that is of use in training alone


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ws-ram", "random", "ps-ram"])
def test_the_same_command_gives_the_same_bits(rivals: Rivals, tmp_path: Path, method: str) -> None:
    once, again = (
        rivals.train(str(tmp_path / out), method, sequences=sequences_of(rivals, method)) for out in ("once", "again")
    )
    for name in ("model.safetensors", "best.safetensors"):
        assert (once.path / name).read_bytes() == (again.path / name).read_bytes()
    assert [row["nll_nats"] for row in once.rows()] == [row["nll_nats"] for row in again.rows()]


@pytest.mark.parametrize("method", ["ram", "random"])
def test_a_policy_is_validated_greedy_and_sampled_and_each_keeps_its_best(
    rivals: Rivals, tmp_path: Path, method: str
) -> None:
    """The logged losses are those of the saved weights; a control has no second policy and no second file."""
    run = rivals.train(str(tmp_path / "out"), method, iterations=100)
    rows, data = run.rows(), nogs.load(rivals.source)
    sampled = {"sampled_nll_nats", "sampled_accuracy"}
    if method == "random":
        assert not sampled & rows[0].keys()
        assert not run.has("model-sampled")
        return
    val = data.members("val")
    for name, figure, choose in (
        ("model", "nll_nats", greedy),
        ("model-sampled", "sampled_nll_nats", sampling(chance(0, 17))),
    ):
        _, network = network_of(run, name)
        seen = look_at_all(network, data.images, val, glimpses=T, choose=choose)
        nll = torch.nn.functional.cross_entropy(seen.class_logits[:, -1], data.labels[val]).item()
        assert nll == pytest.approx(min(row[figure] for row in rows), abs=1e-5)
    assert run.load_metadata("model-sampled") == run.load_metadata("model")


@pytest.mark.parametrize("samples", [1, 3])
def test_the_number_of_wake_sleep_samples_has_an_effect(rivals: Rivals, tmp_path: Path, samples: int) -> None:
    few = rivals.train(str(tmp_path / "few"), "ws-ram", iterations=20, wake_sleep_samples=samples)
    usual = rivals.train(str(tmp_path / "usual"), "ws-ram", iterations=20)
    assert few.rows()[0]["nll_nats"] != usual.rows()[0]["nll_nats"]


def test_a_record_is_where_the_network_looks(rivals: Rivals) -> None:
    """One image at a time, and the likeliest cell by a plain loop."""
    data, found = nogs.load(rivals.source), load_sequences(RunDirectory(rivals.folder / "recorded"))
    assert torch.equal(found.images, data.annotated(ANNOTATED, 0))
    assert found.cells.shape == (ANNOTATED, T)
    assert found.epe is found.eig is found.effective is None
    _, network = network_of(RunDirectory(rivals.folder / "ram"))

    def likeliest(logits: torch.Tensor, t: int) -> torch.Tensor:
        return torch.tensor([max(range(LOCATIONS), key=row.__getitem__) for row in logits.tolist()])

    with torch.inference_mode():
        for image, cells in zip(found.images.tolist(), found.cells.tolist(), strict=True):
            looked = network(data.images[image : image + 1], glimpses=T, choose=likeliest)
            assert looked.cells[0].tolist() == cells


def test_a_control_is_recorded_as_it_looks(rivals: Rivals, tmp_path: Path) -> None:
    centre = rivals.train(str(tmp_path / "centre"), "centre", iterations=20)
    found = load_sequences(rivals.record(str(tmp_path / "recorded"), str(centre.path)))
    assert found.cells.unique().tolist() == [4]  # the middle of 3 x 3


def test_a_path_is_recorded_as_it_was_given(rivals: Rivals, tmp_path: Path) -> None:
    """Trained, validated and run along the one sequence, on images that had none as well."""
    run = rivals.train(str(tmp_path / "path"), "path", iterations=20, sequences=rivals.folder / "imported")
    found = load_sequences(rivals.record(str(tmp_path / "recorded"), str(run.path), annotate=50))
    assert found.cells.tolist() == [[1, 2]] * 50


def test_a_path_is_validated_along_its_cells(rivals: Rivals, tmp_path: Path) -> None:
    """The logged loss is the cross-entropy of the last prediction after the glimpses at cells 1 and 2."""
    run = rivals.train(str(tmp_path / "path"), "path", iterations=20, sequences=rivals.folder / "imported")
    data = nogs.load(rivals.source)
    _, network = network_of(run)
    val = data.members("val")
    seen = look(data.images, network.grid, torch.tensor([[1, 2]]).expand(len(val), -1), val)
    with torch.inference_mode():
        logits = network.classifier(network.encode(seen, network.begin(data.images, val))[:, -1])
    nll = torch.nn.functional.cross_entropy(logits, data.labels[val]).item()
    assert run.rows()[-1]["nll_nats"] == pytest.approx(nll, abs=1e-6)


@pytest.mark.parametrize("path", [None, [1], [1, 2, 3], [1, 9], [-1, 2], [1, 2.0], [True, 2], "12", {"0": 1}])
def test_a_damaged_path_is_refused(rivals: Rivals, tmp_path: Path, path: object) -> None:
    """Missing, of another length, outside the nine cells, or no whole numbers."""
    run = rivals.train(str(tmp_path / "path"), "path", iterations=20, sequences=rivals.folder / "imported")
    meta = {**run.load_metadata("model"), "path": path}
    run.save_tensors("model", run.load_tensors("model"), **meta)
    write_marker(run.path)
    with pytest.raises(nogs.UserError, match=r"model\.safetensors describes no network: .*path"):
        network_of(run)


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ([[1, 2], [1, 2], [1, 3]], "holds 2 different sequences, but one path serves all images: run `nogs"),
        ([[1, 9]], "is damaged: its cells are not 2 of a grid of 9"),
        ([[-1, 2]], "is damaged: its cells are not 2 of a grid of 9"),
        ([[1, 2, 3]], "is damaged: its cells are not 2 of a grid of 9"),
        ([], "is damaged: its cells are not 2 of a grid of 9"),
    ],
)
def test_a_path_is_one_sequence_of_cells_of_the_grid(
    rivals: Rivals, tmp_path: Path, cells: list[list[int]], complaint: str
) -> None:
    given = rivals.imported(str(tmp_path / "given"))
    known = load_sequences(given)
    table = torch.tensor(cells) if cells else torch.empty(0, T, dtype=torch.long)
    save_sequences(given, "sequences", Sequences(known.images[: len(cells)], table), **made_for(given))
    write_marker(given.path)
    with pytest.raises(nogs.UserError, match=complaint):
        rivals.train(str(tmp_path / "out"), "path", sequences=given.path)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_sequences_lead_the_policy_wherever_they_come_from(rivals: Rivals, tmp_path: Path) -> None:
    """Given sequences that always look at the same two cells, the policy does so too."""
    for stage in ("sequences import", "search", "record"):
        given = rivals.imported(str(tmp_path / stage), stage)
        quick = nogs.Optimisation(iterations=100, batch_size=32, validate_every=50, learning_rate=4e-3)
        run = rivals.train(str(tmp_path / f"from-{stage}"), "ps-hgs", optimisation=quick, sequences=given.path)
        found = load_sequences(rivals.record(str(tmp_path / f"recorded-{stage}"), str(run.path)))
        assert (found.cells == torch.tensor([1, 2])).float().mean() > 0.9


def test_runs_without_sequences_are_refused(rivals: Rivals, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    unfinished = rivals.imported(str(tmp_path / "unfinished"))
    (unfinished.path / "COMPLETE").unlink()
    for complaint, how in (
        ("ram is a run directory of `nogs train`, not of", {"sequences": rivals.folder / "ram"}),
        ("nowhere is not a run directory", {"sequences": tmp_path / "nowhere"}),
        ("unfinished is not finished", {"sequences": unfinished.path}),
        (
            r"imported was made with another `stride` \(had 5, now 10\): train with the same",
            {"sequences": rivals.folder / "imported", "geometry": replace(GEOMETRY, stride=10)},
        ),
        ("method=ps-hgs learns from glimpse sequences: give `sequences`", {"sequences": None}),
    ):
        with pytest.raises(nogs.UserError, match=complaint):
            rivals.train(out, "ps-hgs", **how)
        assert not (tmp_path / "out").exists()
    another_kind = "imported is a run directory of `nogs sequences import`, not of `nogs train`"
    with pytest.raises(nogs.UserError, match=another_kind):
        rivals.record(out, "imported")
    with pytest.raises(nogs.UserError, match="method=rum does not exist"):
        rivals.train(out, "rum")
    assert not (tmp_path / "out").exists()
