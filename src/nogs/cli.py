"""The command line: one subcommand a stage. Imports no torch until a command runs, so --help is instant."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import importlib
import io
import re
import sys
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any, get_args

import tyro
from tyro.conf import OmitArgPrefixes, subcommand

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
from nogs.errors import RunError, UserError

Command = (
    Annotated[Run, subcommand("demo", default=DEMO, description="The whole pipeline on built-in digits: five minutes.")]
    | Annotated[Run, subcommand("run")]
    | Annotated[FitPosterior, subcommand("fit-posterior")]
    | Annotated[BuildBank, subcommand("build-bank")]
    | Annotated[Search, subcommand("search")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Record, subcommand("record")]
    | Annotated[FitStopping, subcommand("fit-stopping")]
    | Annotated[
        Annotated[ImportSequences, subcommand("import")] | Annotated[ExportSequences, subcommand("export")],
        subcommand("sequences", description="Glimpse sequences from and to files."),
    ]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Baselines, subcommand("baselines")]
    | Annotated[Report, subcommand("report")]
    | Annotated[Predict, subcommand("predict")]
)
IMPLEMENTATION = {
    Run: "nogs.pipeline:run",
    FitPosterior: "nogs.stages.fit_posterior:fit_posterior",
    BuildBank: "nogs.stages.build_bank:build_bank",
    Search: "nogs.stages.search:search",
    Train: "nogs.stages.train:train",
    Record: "nogs.stages.record:record",
    FitStopping: "nogs.stages.fit_stopping:fit_stopping",
    ImportSequences: "nogs.stages.import_sequences:import_sequences",
    ExportSequences: "nogs.stages.export_sequences:export_sequences",
    Evaluate: "nogs.stages.evaluate:evaluate",
    Baselines: "nogs.stages.baselines:fit_baselines",
    Report: "nogs.stages.report:report",
    Predict: "nogs.stages.predict:predict",
}
OK, FAILED, USER_ERROR = 0, 1, 2
COLOUR = re.compile(r"\x1b\[[\d;]*m")
BORDER = re.compile(r"^[│╭╰|+][─-]*|[─-]*[│╮╯|+]$")
RULE = re.compile(r"\s*[─-]{3,}\s*")


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 failed, 2 the user's mistake."""
    try:
        config = _parse(list(sys.argv[1:] if args is None else args))
        module, function = IMPLEMENTATION[type(config)].split(":")
        getattr(importlib.import_module(module), function)(config)
        if isinstance(config, Run):
            from nogs.report.tables import print_results

            print_results(config.machine.out)
    except UserError as error:
        return _say(str(error), USER_ERROR)
    except RunError as error:
        return _say(str(error), FAILED)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return _say(f"{error.filename}: no permission to read or write here; choose another place", USER_ERROR)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _say(_disk_full(error.filename), FAILED)
        raise
    except KeyboardInterrupt:
        return _say("stopped; the same command with --resume goes on from here", FAILED)
    return OK


def _parse(args: list[str]) -> Any:
    """The configuration that the words stand for. Raises UserError for the first that stands for nothing."""
    command = args[0] if args else ""
    names = [part.__metadata__[0].name for part in get_args(Command)]
    if command and not command.startswith("-") and command not in names:
        raise UserError(f"there is no command {command}: choose among {', '.join(names)}")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config, unknown = tyro.cli(
                Command,
                args=args,
                prog="nogs",
                description="Near-optimal glimpse sequences: hard visual attention, trained fast.",
                return_unknown_args=True,
                config=(OmitArgPrefixes,),
            )
    except SystemExit as end:
        if end.code:
            raise UserError(_unboxed(said.getvalue())) from None
        raise
    if unknown:
        close = difflib.get_close_matches(unknown[0], _flags(config), n=1)
        fix = f"did you mean {close[0]}?" if close else f"see `nogs {command} --help`"
        raise UserError(f"{unknown[0]}: `nogs {command}` takes no such argument; {fix}")
    return config


def _flags(config: Any) -> list[str]:
    values = [(field.name, getattr(config, field.name)) for field in dataclasses.fields(config)]
    of = [_flags(v) if dataclasses.is_dataclass(v) else [f"--{name.replace('_', '-')}"] for name, v in values]
    return list(chain(*of))


def _unboxed(box: str) -> str:
    """What tyro says in a box, in one line: its title, then its paragraphs, which rules part."""
    title, *rows = (BORDER.sub("", COLOUR.sub("", row)).strip() for row in box.splitlines())
    return f"{title}: {'; '.join(part.strip(' .') for part in RULE.split(' '.join(rows)) if part)}"


def _disk_full(file: object) -> str:
    return f"the disk is full ({file or 'while writing'}): free some room, then the same command with --resume goes on"


def _say(line: str, code: int) -> int:
    print(f"nogs: {' '.join(line.splitlines())}", file=sys.stderr)
    return code
