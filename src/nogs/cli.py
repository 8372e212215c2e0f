"""The command line: one subcommand a stage. Imports no torch until a command runs, so --help is instant."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import math
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes, subcommand

from nogs.config import DEMO, BuildBank, Evaluate, FitPosterior, Predict, Report, Run, Search, Train
from nogs.errors import UserError

Command = (
    Annotated[Run, subcommand("demo", default=DEMO, description="The whole pipeline on built-in digits: five minutes.")]
    | Annotated[Run, subcommand("run")]
    | Annotated[FitPosterior, subcommand("fit-posterior")]
    | Annotated[BuildBank, subcommand("build-bank")]
    | Annotated[Search, subcommand("search")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Report, subcommand("report")]
    | Annotated[Predict, subcommand("predict")]
)
IMPLEMENTATION = {
    Run: "nogs.pipeline:run",
    FitPosterior: "nogs.stages.fit_posterior:fit_posterior",
    BuildBank: "nogs.stages.build_bank:build_bank",
    Search: "nogs.stages.search:search",
    Train: "nogs.stages.train:train",
    Evaluate: "nogs.stages.evaluate:evaluate",
    Report: "nogs.stages.report:report",
    Predict: "nogs.stages.predict:predict",
}
OK, FAILED, USER_ERROR = 0, 1, 2
AT_LEAST = {
    0: {"examples", "jobs", "seed", "seeds", "shift", "split_seed"},
    1: {
        *("annotate", "batch_size", "completions", "components", "first", "hidden", "iterations", "patience"),
        *("posterior_iterations", "proposals", "scales", "supervised_batch", "validate_every"),
    },
}
SHARES = {"focus", "effective"}


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 failed, 2 the user's mistake."""
    config: Any = tyro.cli(
        Command,
        args=args,
        prog="nogs",
        description="Near-optimal glimpse sequences: hard visual attention, trained fast.",
        config=(OmitArgPrefixes,),
    )
    try:
        _check_numbers(config)
        module, function = IMPLEMENTATION[type(config)].split(":")
        getattr(importlib.import_module(module), function)(config)
        if isinstance(config, Run):
            from nogs.report.table import print_results

            print_results(config.machine.out)
    except UserError as error:
        return _say(str(error), USER_ERROR)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return _say(f"{error.filename}: no permission to read or write here; choose another place", USER_ERROR)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _say(_disk_full(error.filename), FAILED)
        raise
    except KeyboardInterrupt:
        return _say("stopped; the same command with --resume goes on from here", FAILED)
    return OK


def _check_numbers(config: Any) -> None:
    for field in dataclasses.fields(config):
        value, flag = getattr(config, field.name), f"--{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(value):
            _check_numbers(value)
        for least, names in AT_LEAST.items():
            numbers = value if isinstance(value, tuple) else (value,)
            if field.name in names and min(numbers, default=least) < least:
                raise UserError(f"{flag} {min(numbers)}: must be at least {least}")
        if field.name in SHARES and not 0 <= value <= 1:
            raise UserError(f"{flag} {value}: must be between 0 and 1")
        if field.name == "learning_rate" and not 0 < value < math.inf:
            raise UserError(f"{flag} {value}: must be greater than 0")


def _disk_full(file: object) -> str:
    return f"the disk is full ({file or 'while writing'}): free some room, then the same command with --resume goes on"


def _say(line: str, code: int) -> int:
    print(f"nogs: {' '.join(line.splitlines())}", file=sys.stderr)
    return code
