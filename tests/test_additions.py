"""A completion and a posterior of another kind, defined here: fitted, searched with and shown in examples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.distributions import Categorical

import nogs
import nogs.stages.search
from nogs.completion.bank import load_bank
from nogs.completion.protocol import Completion, Completions
from nogs.completion.retrieval import Retrieval
from nogs.design.gain_maps import CompletionGainMap, exhaustive
from nogs.design.greedy import DesignedSequences, design_sequences
from nogs.engine import computing
from nogs.evaluation.examples import examples
from nogs.glimpses.fovea import Glimpses, look
from nogs.glimpses.grid import Grid
from nogs.posterior.protocol import Candidates, OneLabel, Posterior, TrainablePosterior, distribution
from nogs.runs.directory import RunDirectory, open_run
from nogs.sequences.table import Sequences
from nogs.specs import PosteriorSpec
from nogs.stages.fit_posterior import Fitting
from nogs.stages.search import Chunks, map_chunk
from nogs.training.loop import fit
from nogs.weights import load_network
from staged import GEOMETRY, LOCATIONS, RETRIEVAL, Stages, run_of, silent
from tiny import CLASSES, GLIMPSE_PX, IMAGE_PX, STRIDE_PX, T

GRID = Grid(IMAGE_PX, GLIMPSE_PX, STRIDE_PX)


class BagOfGlimpses(nn.Module):
    """A posterior that averages a linear feature of every glimpse, without regard to location or order."""

    maps_are_cheap = False

    def __init__(self) -> None:
        super().__init__()
        self.grid = GRID
        self.focus: Tensor
        self.register_buffer("focus", torch.full((len(GRID),), 1 / len(GRID)))
        self.feature = nn.Linear(GLIMPSE_PX**2, 16)
        self.answer = nn.Linear(16, len(CLASSES))

    @property
    def device(self) -> torch.device:
        return self.focus.device

    def features(self, glimpses: Glimpses) -> Tensor:
        each = self.feature(glimpses.patches.flatten(2).float() / 255).relu()
        return each.cumsum(1) / torch.arange(1, each.shape[1] + 1)[:, None]

    def by_glimpse(self, glimpses: Glimpses) -> Categorical:
        return distribution(self.answer(self.features(glimpses)), multilabel=False)

    def forward(self, glimpses: Glimpses) -> Categorical:
        if not glimpses.cells.shape[1]:
            return distribution(self.answer(torch.zeros(len(glimpses.cells), 16)), multilabel=False)
        return distribution(self.by_glimpse(glimpses).logits[:, -1], multilabel=False)

    def for_training(self, glimpses: Glimpses, *, generator: Generator) -> Categorical:
        return self.by_glimpse(glimpses)

    def lookahead(self, seen: Glimpses, candidates: Candidates) -> Categorical:
        new = look(candidates.completions, self.grid, candidates.cells[:, None], candidates.rows)
        before = candidates.owners[candidates.rows]
        pairs = zip((seen.patches[before], seen.cells[before]), new, strict=True)
        return self(Glimpses(*(torch.cat(pair, dim=1) for pair in pairs)))

    def for_label(self, label: int) -> Posterior:
        return OneLabel(self, label)


@dataclass(frozen=True)
class Anything:
    """A completion that takes nothing that was seen into account: ``count`` images of a set, evenly weighted."""

    images: Tensor
    count: int = 8

    def unconditional(self, count: int, *, generator: Generator) -> Completions:
        return self._draw(1, count, generator)

    def __call__(self, seen: Glimpses, *, groups: Tensor, generator: Generator) -> Completions:
        return self._draw(len(seen.cells), self.count, generator)

    def _draw(self, owners: int, count: int, generator: Generator) -> Completions:
        rows = torch.cat([torch.randperm(len(self.images), generator=generator)[:count] for _ in range(owners)])
        of = torch.arange(owners).repeat_interleave(count)
        return Completions(
            self.images[rows], of, torch.full((len(of),), 1 / count), torch.full((owners,), float(count))
        )


def trained(stages: Stages, folder: Path) -> BagOfGlimpses:
    """Fitted as the stage fits its own posteriors."""
    optimisation = nogs.Optimisation(iterations=200, batch_size=32, learning_rate=1e-2, validate_every=100)
    config = nogs.FitPosterior(
        nogs.Machine(folder), stages.source, GEOMETRY, optimisation=optimisation, annotate=30, focus=0.5
    )
    torch.manual_seed(0)
    posterior = BagOfGlimpses()
    fitting = Fitting.of(config, posterior, nogs.load(stages.source))
    run = open_run(folder, "fit-posterior", config, resume=False)
    fit(
        posterior,
        run,
        loss=fitting.loss,
        validate=fitting.validate,
        examples=len(fitting.train),
        optimisation=optimisation,
        device=posterior.device,
        tick=silent,
        begin=fitting.begin,
    )
    first, last = (row["nll_nats"] for row in run.rows())
    assert last < first
    return posterior


def searched(
    run: RunDirectory, config: nogs.Search, posterior: Posterior, completion: Completion, data: nogs.ImageSet
) -> DesignedSequences:
    gain_map = CompletionGainMap(posterior, completion, exhaustive, unconditional=16)
    with computing("local", map_chunk, gain_map, workers=0) as compute, torch.inference_mode():
        chunks = Chunks(run, config, compute, posterior.grid, data, data.annotated(30, 0), T, silent)
        return design_sequences(chunks.maps_at, 30, glimpses=T, criterion="eig")


@pytest.mark.parametrize("kind", ["posterior", "completion"])
def test_another_kind_is_searched_with_and_shown(
    kind: str, stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a search that was killed after some of its chunks, and goes on to the same end."""
    monkeypatch.setattr(nogs.stages.search, "CHUNK", 8)
    data = nogs.load(stages.source)
    if kind == "posterior":
        posterior: Posterior = trained(stages, tmp_path / "posterior")
        bank = load_bank(run_of(stages, "bank"), data)
        completion: Completion = Retrieval(bank, GRID, RETRIEVAL)
        assert isinstance(posterior, TrainablePosterior)
    else:
        _, posterior = load_network(
            run_of(stages, "posterior"), "model", kind=PosteriorSpec, device=torch.device("cpu")
        )
        completion = Anything(data.images[data.members("train")])
        assert isinstance(completion, Completion)
    config = nogs.Search(stages.machine(str(tmp_path / "one")), Path("posterior"), Path("bank"), pooling=0.0)
    one = open_run(config.machine.out, "search", config, resume=False)
    designed = searched(one, config, posterior, completion, data)
    assert designed.eig.shape == (30, T, LOCATIONS)
    assert designed.eig.min() > -1e-6
    assert (designed.cells[:, 0] != designed.cells[:, 1]).all()
    other = open_run(
        tmp_path / "other", "search", replace(config, machine=stages.machine(str(tmp_path / "other"))), resume=False
    )
    for row in one.rows()[:3]:
        name = f"{row['name']}.safetensors"
        (other.path / name).write_bytes((one.path / name).read_bytes())
        other.log(**row)
    resumed = searched(other, config, posterior, completion, data)
    assert all(torch.equal(a, b) for a, b in zip(designed, resumed, strict=True))
    sequences = Sequences(data.annotated(30, 0), **designed._asdict())
    with torch.inference_mode():
        shown = examples(posterior, completion, data, sequences, count=6, criterion="eig", pooling=0.0)
    assert shown["cells"].shape == (6, T)
    assert shown["log_probs"].shape == (6, T, len(CLASSES))
    assert shown["completion_gains"].shape[-1] == LOCATIONS
