"""Run all stages on one tiny set of images, from Python."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nogs
import nogs.stages.search
from nogs.runs.directory import RunDirectory
from tiny import GLIMPSE_PX, STRIDE_PX, T

NETWORK = nogs.AttentionNetwork(32)
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
            self.machine(name),
            self.folder / posterior,
            self.folder / "bank",
            retrieval=RETRIEVAL,
            first=32,
            pooling=0.0,
        )
        return nogs.search(replace(config, **how), silent)

    def train(self, name: str, method: str, *, seed: int = 0, iterations: int = 60, **how: Any) -> RunDirectory:
        optimisation = nogs.Optimisation(iterations=iterations, batch_size=32, validate_every=20, seed=seed)
        sequences = self.folder / "sequences" if method != "ram" else None
        config = nogs.Train(
            self.machine(name),
            self.source,
            GEOMETRY,
            optimisation,
            method=method,
            sequences=sequences,
            network=NETWORK,
        )
        return nogs.train(replace(config, **how), silent)

    def evaluate(self, name: str, *models: str, **how: Any) -> RunDirectory:
        paths = tuple(self.folder / model for model in models)
        config = nogs.Evaluate(self.machine(name), paths, self.folder / "sequences", examples=4)
        return nogs.evaluate(replace(config, **how), silent)


def run_of(stages: Stages, name: str) -> RunDirectory:
    return RunDirectory(stages.folder / name)


def rows_but_time(run: RunDirectory) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if not key.endswith("seconds")} for row in run.rows()]


def same_bits(one: RunDirectory, other: RunDirectory, *names: str) -> bool:
    return all((one.path / name).read_bytes() == (other.path / name).read_bytes() for name in names)
