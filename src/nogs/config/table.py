"""The table of stages, which defines the commands, the functions of `nogs` and the directories of the pipeline.

To add a stage, write its configuration (`nogs.config.stages`), its function (a file in `nogs.stages`) and a row.
"""

from __future__ import annotations

from typing import NamedTuple

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


class Stage(NamedTuple):
    """A row of the table.

    ``name``: the command after ``nogs``, and the stage in config.json.
    ``config``: its configuration; the first line of the docstring describes the stage.
    ``verb``: its function, as "module:function", imported when the stage runs.
    ``directory``: directory of its runs within that of the pipeline; empty if the pipeline has none.
    """

    name: str
    config: type
    verb: str
    directory: str = ""

    @property
    def function(self) -> str:
        """The name of the function in Python, as in "fit_posterior"."""
        return self.verb.partition(":")[2]

    @property
    def description(self) -> str:
        """One line that describes the stage, without a full stop."""
        return (self.config.__doc__ or "").partition("\n")[0].rstrip(".")


STAGES = (
    Stage("run", Run, "nogs.pipeline:run"),
    Stage("bench", Bench, "nogs.benchmark:bench"),
    Stage("tune", Tune, "nogs.tuning:tune"),
    Stage("fit-posterior", FitPosterior, "nogs.stages.fit_posterior:fit_posterior", "posterior"),
    Stage("build-bank", BuildBank, "nogs.stages.build_bank:build_bank", "bank"),
    Stage("search", Search, "nogs.stages.search:search", "sequences"),
    Stage("train", Train, "nogs.stages.train:train", "train"),
    Stage("record", Record, "nogs.stages.record:record", "recorded"),
    Stage("fit-stopping", FitStopping, "nogs.stages.fit_stopping:fit_stopping", "stopping"),
    Stage("sequences import", ImportSequences, "nogs.stages.import_sequences:import_sequences"),
    Stage("sequences export", ExportSequences, "nogs.stages.export_sequences:export_sequences"),
    Stage("evaluate", Evaluate, "nogs.stages.evaluate:evaluate", "evaluation"),
    Stage("baselines", Baselines, "nogs.stages.baselines:fit_baselines", "baselines"),
    Stage("report", Report, "nogs.stages.report:draw_report"),
    Stage("predict", Predict, "nogs.stages.predict:predict"),
    Stage("export", Export, "nogs.stages.export:export_onnx"),
    Stage("slides", Slides, "nogs.stages.slides:write_slides"),
)


def stage_of(config: type) -> Stage:
    """Return the stage that a configuration class belongs to."""
    return next(stage for stage in STAGES if stage.config is config)
