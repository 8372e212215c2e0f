"""The command line: parse a command, run its stage, and turn errors into exit codes and flags.

Commands are the rows of `nogs.config.table`, and `demo`. torch is not imported before a stage runs, so that
``nogs --help`` is fast.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import importlib
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import tyro
from tyro.conf import OmitArgPrefixes, Positional

import nogs
from nogs.config.bench import Bench
from nogs.config.pipeline import DEMO, Run
from nogs.config.table import STAGES, stage_of
from nogs.config.tune import Tune
from nogs.errors import RunError, UserError
from nogs.runs.files import read_object
from nogs.runs.identity import from_json
from nogs.runs.paths import absolute

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
    **{stage.name: Command(stage.config, stage.verb, stage.description) for stage in STAGES},
}
ALIASES = {"image_px": "image_size", "glimpse_px": "glimpse_size", "stride_px": "stride"}
"""Arguments of functions whose names differ from the option that sets them."""
_OF_PATHS = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL)
_ARGUMENT = re.compile(r"(?<![\w/.=`-])(?:`(?P<bare>\w+)`|(?P<name>\w+)=(?P<switch>True\b|False\b)?)")


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 failed, 2 invalid input."""
    words = list(sys.argv[1:] if args is None else args)
    name = _command_of(words)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that lack characters of a name
    try:
        with _interrupted_once(), _flushed():
            if not name:
                return _without_command(words)
            _run(name, words[len(name.split()) :])
    except UserError as error:
        return _end(in_flags(str(error), name), USER_ERROR)
    except RunError as error:
        return _end(in_flags(str(error), name), FAILED)
    except BrokenPipeError:  # the reader of standard output closed it, as in `nogs predict ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.errno is None:
            raise
        return _end(*_of_system(error, name))
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        return _end(f"out of memory: {_advice(name)}", FAILED)
    except KeyboardInterrupt:
        return _end(f"stopped{_continue(name)}", FAILED)
    return OK


def in_flags(message: str, name: str) -> str:
    """Rewrite the arguments that a message names (`nogs.errors`) as the flags of the command ``name``.

    ``stride=4`` becomes ``--stride 4``, ``resume=True`` ``--resume``, ``mirror=False`` ``--no-mirror``, and a name in
    backticks ``--name``. Names that the command does not take are not changed, nor are words after a slash, a dot or
    an equals sign, which are parts of paths.
    """
    flags = dict(_flags(COMMANDS[name].config)) if name else {}

    def flag(match: re.Match[str]) -> str:
        argument = match["bare"] or match["name"]
        spelled = flags.get(ALIASES.get(argument, argument))
        if spelled is None:
            return match[0]
        if match["switch"]:
            return spelled if match["switch"] == "True" else spelled.replace("--", "--no-", 1)
        return spelled if match["bare"] else f"{spelled} "

    return _ARGUMENT.sub(flag, message)


def _command_of(words: list[str]) -> str:
    """Return the command at the start of ``words``; empty if there is none."""
    return next((name for name in (" ".join(words[:2]), *words[:1]) if name in COMMANDS), "")


def _without_command(words: list[str]) -> int:
    """Print the help or the version. Raises UserError for other words, which are not a command."""
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
    _check_working_directory()
    module, function = COMMANDS[name].verb.split(":")
    getattr(importlib.import_module(module), function)(config)
    if isinstance(config, Run):
        from nogs.report.tables import print_results

        print_results(config.machine.out)
    elif isinstance(config, Bench):
        from nogs.report.bench_page import print_bench

        print_bench(config.machine.out)
    elif isinstance(config, Tune):
        from nogs.report.tune_page import print_tune

        print_tune(config.machine.out)


def _parse(name: str, args: list[str]) -> Any:
    """Return the configuration that ``args`` give the command. Raises UserError for the first that is invalid."""
    command, box = COMMANDS[name], io.StringIO()
    stored = _stored(command, args)
    default = command.default if stored is None else stored
    try:
        with contextlib.redirect_stderr(box):
            config, unknown = tyro.cli(
                command.config,
                args=args,
                prog=f"nogs {name}",
                description=f"{command.description}.",
                return_unknown_args=True,
                config=(OmitArgPrefixes,),
                **({} if default is None else {"default": default}),
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


def _stored(command: Command, args: list[str]) -> Any:
    """Return the configuration of the run directory that ``args`` resume, with the values of options that they omit.

    None if they resume no run. Also None if the stored configuration is of another stage or damaged, for which the
    stage raises an error.
    """
    if "--resume" not in args or "machine" not in get_type_hints(command.config):
        return None
    words = [word for arg in args for word in arg.split("=", 1)]
    if "--out" in words[:-1]:
        out = Path(words[words.index("--out") + 1])
    elif command.default is not None:
        out = command.default.machine.out
    else:
        return None
    try:
        home = out.expanduser().absolute()
        content = absolute(read_object(home / "config.json"), home)
        if content.pop("stage", None) != stage_of(command.config).name:
            return None
        config: Any = from_json(command.config, content)
    except (UserError, OSError, RuntimeError):
        return None
    return dataclasses.replace(config, machine=dataclasses.replace(config.machine, out=out, resume=False))


def _flags(config: type) -> Iterator[tuple[str, str]]:
    """Yield (name, flag) of every option of a configuration class, including those of its groups."""
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
    plain = re.sub(r"\x1b\[[\d;]*m", "", box)  # without colours, which are there if stdout is a terminal
    title, *rows = (re.sub(r"^[│╭╰|+][─-]*|[─-]*[│╮╯|+]$", "", row).strip() for row in plain.strip().splitlines())
    paragraphs = re.split(r"\s*[─-]{3,}\s*", " ".join(rows))
    return f"{title}: {'; '.join(text.strip(' .') for text in paragraphs if text)}"


@contextlib.contextmanager
def _interrupted_once() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first Ctrl-C and ignore later ones while the run ends."""

    def interrupt(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    # Python handles signals in the main thread only. In a background process they may be ignored already.
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or (
        threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _flushed() -> Iterator[None]:
    """Flush standard output at the end, so that a closed pipe raises an error that can be caught."""
    try:
        yield
    finally:
        sys.stdout.flush()


def _check_working_directory() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UserError("the working directory does not exist any more: change to another one") from None


def _of_system(error: OSError, name: str) -> tuple[str, int]:
    """Return one line and the exit code for an error of the operating system."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.filename}: no permission to read or write here; choose another place", USER_ERROR
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f" ({error.filename})" if error.filename else ""
        return f"the disk is full{place}: remove files from it{_continue(name)}", FAILED
    exists = error.errno == errno.EEXIST and not Path(error.filename).exists()
    reason = "a link that leads nowhere" if exists else error.strerror
    line = f"{os.fsdecode(error.filename) if error.filename else 'input or output'}: {reason}"
    if error.errno in _OF_PATHS:
        return f"{line}; choose another path", USER_ERROR
    return line, FAILED


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether memory could not be allocated by numpy or by torch, which has no error class for the CPU."""
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _advice(name: str) -> str:
    """Return how to use less memory: the options of a command that determine it."""
    flags = dict(_flags(COMMANDS[name].config))
    smaller = [flags[option] for option in ("batch_size", "image_size", "hidden", "completions") if option in flags]
    return f"choose a smaller {' or '.join(smaller)}" if smaller else "close other programs, or use a larger machine"


def _continue(name: str) -> str:
    """Return how to continue a stopped command; empty for commands without --resume."""
    resumes = name and any(option == "resume" for option, _ in _flags(COMMANDS[name].config))
    return "; the same command with --resume goes on from here" if resumes else ""


def _end(line: str, code: int) -> int:
    """Print an error as one line on stderr, and return its exit code."""
    print(f"nogs: {' '.join(line.splitlines())}", file=sys.stderr)
    return code
