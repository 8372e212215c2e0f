"""nogs: hard visual attention, trained fast with near-optimal glimpse sequences.

A trained network classifies images of any kind and size:

>>> import nogs
>>> model = nogs.load_model("runs/cats/train/ps-nogs-seed0")
>>> answer = model.predict("photo.jpg")
>>> answer.label, answer.probs, answer.glimpses, answer.steps, answer.macs
>>> answer.plot()

Every stage of the pipeline is a function of its configuration, in Python as on the command line:

>>> nogs.run(nogs.Run(machine=nogs.Machine(out="runs/cats"), source=nogs.Source(data="folder:cats")))

Configurations import no torch. The other names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nogs.config import table as _table
from nogs.config.groups import (
    AttentionNetwork,
    GainOptions,
    Geometry,
    Machine,
    Optimisation,
    PatchOptions,
    PosteriorNetwork,
    RetrievalOptions,
    Source,
    Together,
)
from nogs.config.pipeline import DEMO
from nogs.errors import RunError, UserError

if TYPE_CHECKING:  # at run time these come from `_PLACES` and the table of stages, in __getattr__
    from nogs.attention.choosers import greedy, sampling
    from nogs.attention.methods import METHODS
    from nogs.attention.network import HardAttention
    from nogs.benchmark import bench
    from nogs.completion.bank import Bank
    from nogs.completion.retrieval import Retrieval
    from nogs.config.bench import Bench
    from nogs.config.pipeline import Run
    from nogs.config.stages import (
        Baselines,
        BuildBank,
        Evaluate,
        Export,
        ExportSequences,
        FitPosterior,
        FitStopping,
        ImportSequences,
        Predict,
        Record,
        Report,
        Search,
        Slides,
        Train,
    )
    from nogs.config.tune import Tune
    from nogs.data import ImageSet, load
    from nogs.data.arrays import from_arrays
    from nogs.design.gain_maps import CompletionGainMap
    from nogs.glimpses.fovea import Glimpses, look
    from nogs.glimpses.grid import Grid
    from nogs.pipeline import run
    from nogs.posterior.lookahead import LookaheadPosterior
    from nogs.posterior.masked_cnn import AVPCNN
    from nogs.prediction.answer import Answer
    from nogs.prediction.load import load_model
    from nogs.prediction.model import Model
    from nogs.sequences.table import Sequences
    from nogs.stages.baselines import fit_baselines
    from nogs.stages.build_bank import build_bank
    from nogs.stages.evaluate import evaluate
    from nogs.stages.export import export_onnx
    from nogs.stages.export_sequences import export_sequences
    from nogs.stages.fit_posterior import fit_posterior
    from nogs.stages.fit_stopping import fit_stopping
    from nogs.stages.import_sequences import import_sequences
    from nogs.stages.predict import predict
    from nogs.stages.record import record
    from nogs.stages.report import draw_report
    from nogs.stages.search import search
    from nogs.stages.slides import write_slides
    from nogs.stages.train import train
    from nogs.tuning import tune

__version__ = "0.1.0"

_PLACES = {
    "AVPCNN": "nogs.posterior.masked_cnn",
    "Answer": "nogs.prediction.answer",
    "Bank": "nogs.completion.bank",
    "CompletionGainMap": "nogs.design.gain_maps",
    "Glimpses": "nogs.glimpses.fovea",
    "Grid": "nogs.glimpses.grid",
    "HardAttention": "nogs.attention.network",
    "ImageSet": "nogs.data",
    "LookaheadPosterior": "nogs.posterior.lookahead",
    "METHODS": "nogs.attention.methods",
    "Model": "nogs.prediction.model",
    "Retrieval": "nogs.completion.retrieval",
    "Sequences": "nogs.sequences.table",
    "from_arrays": "nogs.data.arrays",
    "greedy": "nogs.attention.choosers",
    "load": "nogs.data",
    "load_model": "nogs.prediction.load",
    "look": "nogs.glimpses.fovea",
    "sampling": "nogs.attention.choosers",
}
"""Name → the module that it is imported from when it is first used, beside the names of the table of stages."""

__all__ = [
    "AVPCNN",
    "DEMO",
    "METHODS",
    "Answer",
    "AttentionNetwork",
    "Bank",
    "Baselines",
    "Bench",
    "BuildBank",
    "CompletionGainMap",
    "Evaluate",
    "Export",
    "ExportSequences",
    "FitPosterior",
    "FitStopping",
    "GainOptions",
    "Geometry",
    "Glimpses",
    "Grid",
    "HardAttention",
    "ImageSet",
    "ImportSequences",
    "LookaheadPosterior",
    "Machine",
    "Model",
    "Optimisation",
    "PatchOptions",
    "PosteriorNetwork",
    "Predict",
    "Record",
    "Report",
    "Retrieval",
    "RetrievalOptions",
    "Run",
    "RunError",
    "Search",
    "Sequences",
    "Slides",
    "Source",
    "Together",
    "Train",
    "Tune",
    "UserError",
    "bench",
    "build_bank",
    "draw_report",
    "evaluate",
    "export_onnx",
    "export_sequences",
    "fit_baselines",
    "fit_posterior",
    "fit_stopping",
    "from_arrays",
    "greedy",
    "import_sequences",
    "load",
    "load_model",
    "look",
    "predict",
    "record",
    "run",
    "sampling",
    "search",
    "train",
    "tune",
    "write_slides",
]


def __getattr__(name: str) -> Any:
    """Return a noun, a configuration class or a stage's function; torch is imported with the first that needs it."""
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    for stage in _table.STAGES:
        if name == stage.config.__name__:
            return stage.config
        if name == stage.function:
            module, _, function = stage.verb.partition(":")
            return getattr(importlib.import_module(module), function)
    raise AttributeError(f"module 'nogs' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List what users of the package need: nouns, configurations, functions and errors."""
    stages = {name for stage in _table.STAGES for name in (stage.config.__name__, stage.function)}
    return sorted({*__all__, *stages, "__version__"})
