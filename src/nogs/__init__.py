"""nogs: hard visual attention, trained fast with near-optimal glimpse sequences.

Every stage of the pipeline is a function of its configuration, in Python as on the command line.

>>> from pathlib import Path
>>> import nogs
>>> nogs.run(nogs.Run(machine=nogs.Machine(out=Path("runs/cats")), source=nogs.Source(data="folder:cats")))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nogs.config import table as _table
from nogs.config.groups import (
    Geometry,
    Machine,
    Optimisation,
    PatchOptions,
    PosteriorNetwork,
    RetrievalOptions,
    Source,
)
from nogs.config.pipeline import DEMO
from nogs.errors import RunError, UserError

if TYPE_CHECKING:  # at run time these come from the table of stages, in __getattr__
    from nogs.config.pipeline import Run
    from nogs.config.stages import (
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
        Search,
        Train,
    )
    from nogs.data import load
    from nogs.pipeline import run
    from nogs.stages.baselines import fit_baselines
    from nogs.stages.build_bank import build_bank
    from nogs.stages.evaluate import evaluate
    from nogs.stages.export_sequences import export_sequences
    from nogs.stages.fit_posterior import fit_posterior
    from nogs.stages.fit_stopping import fit_stopping
    from nogs.stages.import_sequences import import_sequences
    from nogs.stages.predict import predict
    from nogs.stages.record import record
    from nogs.stages.report import draw_report
    from nogs.stages.search import search
    from nogs.stages.train import train

__version__ = "0.1.0"

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
    "PatchOptions",
    "PosteriorNetwork",
    "Predict",
    "Record",
    "Report",
    "RetrievalOptions",
    "Run",
    "RunError",
    "Search",
    "Source",
    "Train",
    "UserError",
    "build_bank",
    "draw_report",
    "evaluate",
    "export_sequences",
    "fit_baselines",
    "fit_posterior",
    "fit_stopping",
    "import_sequences",
    "load",
    "predict",
    "record",
    "run",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    """Return a configuration class or a function of the table of stages; torch is imported with the first function."""
    places = {"load": "nogs.data:load"}
    for stage in _table.STAGES:
        if name == stage.config.__name__:
            return stage.config
        places[stage.function] = stage.verb
    if name not in places:
        raise AttributeError(f"module 'nogs' has no attribute {name!r}")
    module, _, function = places[name].partition(":")
    return getattr(importlib.import_module(module), function)


def __dir__() -> list[str]:
    """List what users of the package need: configurations, functions and errors."""
    stages = {name for stage in _table.STAGES for name in (stage.config.__name__, stage.function)}
    return sorted({*__all__, *stages, "__version__"})
