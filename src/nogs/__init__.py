"""nogs: hard visual attention, trained fast with near-optimal glimpse sequences.

The pipeline from Python is the pipeline of the command line: every stage is a function of its configuration.

>>> import nogs
>>> nogs.run(nogs.Run(machine=nogs.Machine(out=Path("runs/cats")), source=nogs.Source(data="folder:cats")))
"""

from __future__ import annotations

import importlib
from typing import Any

from nogs.config.groups import Geometry, Machine, Optimisation, PosteriorNetwork, RetrievalOptions, Source
from nogs.config.stages import (
    DEMO,
    Baselines,
    BuildBank,
    Evaluate,
    ExportSequences,
    FitPosterior,
    FitStopping,
    ImportSequences,
    Predict,
    Record,
    Report,
    Run,
    Search,
    Train,
)
from nogs.errors import UserError

_STAGES = {
    "build_bank": "nogs.stages.build_bank",
    "evaluate": "nogs.stages.evaluate",
    "export_sequences": "nogs.stages.export_sequences",
    "fit_baselines": "nogs.stages.baselines",
    "fit_posterior": "nogs.stages.fit_posterior",
    "fit_stopping": "nogs.stages.fit_stopping",
    "import_sequences": "nogs.stages.import_sequences",
    "load": "nogs.data",
    "predict": "nogs.stages.predict",
    "record": "nogs.stages.record",
    "report": "nogs.stages.report",
    "run": "nogs.pipeline",
    "search": "nogs.stages.search",
    "train": "nogs.stages.train",
}

__all__ = [
    "DEMO",
    "Baselines",
    "BuildBank",
    "Evaluate",
    "ExportSequences",
    "FitPosterior",
    "FitStopping",
    "Geometry",
    "ImportSequences",
    "Machine",
    "Optimisation",
    "PosteriorNetwork",
    "Predict",
    "Record",
    "Report",
    "RetrievalOptions",
    "Run",
    "Search",
    "Source",
    "Train",
    "UserError",
    "build_bank",
    "evaluate",
    "export_sequences",
    "fit_baselines",
    "fit_posterior",
    "fit_stopping",
    "import_sequences",
    "load",
    "predict",
    "record",
    "report",
    "run",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    """The stages, imported when first asked for: they bring torch, and `nogs --help` need not."""
    if name in _STAGES:
        return getattr(importlib.import_module(_STAGES[name]), name)
    raise AttributeError(f"module 'nogs' has no attribute {name!r}")
