"""The command line: parse a command, run its stage, and turn errors into exit codes and flags.

Commands are the rows of `nogs.config.table`, and `demo`. No torch is imported until a stage runs, so that
``nogs --help`` answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import importlib
import io
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, get_args, get_type_hints

import tyro
from tyro.conf import OmitArgPrefixes, Positional

import nogs
from nogs.config.stages import DEMO, Run
from nogs.config.table import STAGES
from nogs.errors import RunError, UserError

OK, FAILED, USER_ERROR = 0, 1, 2
DESCRIPTION = "Near-optimal glimpse sequences: hard visual attention, trained fast."


class Command(NamedTuple):
    """A configuration class, the "module:function" that takes it, and default values other than the class's own."""

    config: type
    verb: str
    description: str
    default: Any = None


COMMANDS = {
    "demo": Command(Run, "nogs.pipeline:run", "Run the whole pipeline on built-in digits: five minutes", DEMO),
    **{stage.command: Command(stage.config, stage.verb, stage.description) for stage in STAGES},
}
ALIASES = {"image_px": "image_size", "glimpse_px": "glimpse_size", "stride_px": "stride"}
"""Arguments of functions whose names differ from the option that sets them."""
_ARGUMENT = re.compile(r"(?<![\w/.=`-])(?:`(?P<bare>\w+)`|(?P<name>\w+)=(?P<switch>True\b|False\b)?)")


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 failed, 2 invalid input."""
    words = list(sys.argv[1:] if args is None else args)
    name = _command_of(words)
    try:
        if not name:
            return _without_command(words)
        _run(name, words[len(name.split()) :])
    except UserError as error:
        return _end(in_flags(str(error), name), USER_ERROR)
    except RunError as error:
        return _end(in_flags(str(error), name), FAILED)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return _end(f"{error.filename}: no permission to read or write here; choose another place", USER_ERROR)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _end(_disk_full(error.filename), FAILED)
        raise
    except KeyboardInterrupt:
        return _end("stopped; the same command with --resume goes on from here", FAILED)
    return OK


def in_flags(message: str, name: str) -> str:
    """Rewrite the arguments that a message names (`nogs.errors`) as the flags of the command ``name``.

    ``stride=4`` becomes ``--stride 4``, ``resume=True`` ``--resume``, ``mirror=False`` ``--no-mirror``, and a name in
    backticks ``--name``. Names that the command does not take are left as they are, and so is what follows a slash,
    a dot or an equals sign: it is part of a path.
    """
    flags = dict(_flags(COMMANDS[name].config)) if name else {}

    def flag(found: re.Match[str]) -> str:
        argument = found["bare"] or found["name"]
        spelled = flags.get(ALIASES.get(argument, argument))
        if spelled is None:
            return found[0]
        if found["switch"]:
            return spelled if found["switch"] == "True" else spelled.replace("--", "--no-", 1)
        return spelled if found["bare"] else f"{spelled} "

    return _ARGUMENT.sub(flag, message)


def _command_of(words: list[str]) -> str:
    """The command that the words begin with; empty if they begin with none."""
    return next((name for name in (" ".join(words[:2]), *words[:1]) if name in COMMANDS), "")


def _without_command(words: list[str]) -> int:
    """Answer --help and --version. Raises UserError for anything else that is no command."""
    if "--version" in words[:1]:
        print(f"nogs {nogs.__version__}")
        return OK
    if {"-h", "--help"} & set(words):
        width = max(map(len, COMMANDS))
        rows = [f"  {name:{width}}  {command.description}" for name, command in COMMANDS.items()]
        print("usage: nogs [-h] [--version] COMMAND ...", DESCRIPTION, "commands:", sep="\n\n")
        print(*rows, "", "`nogs COMMAND --help` lists the options of a command.", sep="\n")
        return OK
    if not words:
        raise UserError(f"give a command: {', '.join(COMMANDS)}")
    close = difflib.get_close_matches(" ".join(words[:2]), COMMANDS, n=1) or difflib.get_close_matches(
        words[0], COMMANDS, n=1
    )
    guess = f"did you mean {close[0]}? " if close else ""
    raise UserError(f"there is no command {words[0]}: {guess}choose among {', '.join(COMMANDS)}")


def _run(name: str, args: list[str]) -> None:
    config = _parse(name, args)
    module, function = COMMANDS[name].verb.split(":")
    getattr(importlib.import_module(module), function)(config)
    if isinstance(config, Run):
        from nogs.report.tables import print_results

        print_results(config.machine.out)


def _parse(name: str, args: list[str]) -> Any:
    """Return the configuration that ``args`` give the command. Raises UserError for the first that is invalid."""
    command, box = COMMANDS[name], io.StringIO()
    default = {} if command.default is None else {"default": command.default}
    try:
        with contextlib.redirect_stderr(box):
            config, unknown = tyro.cli(
                command.config,
                args=args,
                prog=f"nogs {name}",
                description=f"{command.description}.",
                return_unknown_args=True,
                config=(OmitArgPrefixes,),
                **default,
            )
    except SystemExit as end:
        if end.code:
            raise UserError(_without_box(box.getvalue())) from None
        raise
    if unknown:
        close = difflib.get_close_matches(unknown[0], [flag for _, flag in _flags(command.config)], n=1)
        fix = f"did you mean {close[0]}?" if close else f"see `nogs {name} --help`"
        raise UserError(f"{unknown[0]}: `nogs {name}` takes no such argument; {fix}")
    return config


def _flags(config: type) -> Iterator[tuple[str, str]]:
    """Yield (name, flag) of every option of a configuration class, those of its groups too."""
    for name, hint in get_type_hints(config, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            yield from _flags(hint)
        elif Positional in get_args(hint):
            yield name, next(part.metavar for part in get_args(hint) if hasattr(part, "metavar"))
        else:
            yield name, f"--{name.replace('_', '-')}"


def _without_box(box: str) -> str:
    """Return the parser's error message as one line.

    tyro prints an error as a box of the terminal's width: a title in the upper edge, then paragraphs with rules
    between them. Its hook for errors (`tyro._errors`) is private and may change with any release.
    """
    plain = re.sub(r"\x1b\[[\d;]*m", "", box)  # colours, where stdout is a terminal
    title, *rows = (re.sub(r"^[│╭╰|+][─-]*|[─-]*[│╮╯|+]$", "", row).strip() for row in plain.strip().splitlines())
    paragraphs = re.split(r"\s*[─-]{3,}\s*", " ".join(rows))
    return f"{title}: {'; '.join(text.strip(' .') for text in paragraphs if text)}"


def _disk_full(file: object) -> str:
    return f"the disk is full ({file or 'while writing'}): free some room, then the same command with --resume goes on"


def _end(line: str, code: int) -> int:
    print(f"nogs: {' '.join(line.splitlines())}", file=sys.stderr)
    return code
