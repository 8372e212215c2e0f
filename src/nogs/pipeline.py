"""The order of the stages in `nogs run`: posterior, bank, sequences, trainings, evaluation, report.

Posterior, bank and search run only if a method learns from designed sequences. Each stage is a run directory below
``out``; a finished one is not done again. Trainings run side by side, each in a process on a core of its own
(`nogs.jobs`) or by a worker of Ray (`nogs.engine`), because networks this small do not gain from a second thread. A
method that learns from recorded sequences waits for the training that is recorded.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from pathlib import Path

from nogs.attention.gain import check_detail
from nogs.attention.methods import METHODS, REFERENCE, method, scheduled
from nogs.config.bounds import check_distinct
from nogs.config.groups import Optimisation
from nogs.config.pipeline import Run
from nogs.config.stages import (
    Baselines,
    BuildBank,
    Evaluate,
    FitPosterior,
    FitStopping,
    Record,
    Report,
    Search,
    Train,
)
from nogs.config.table import stage_of
from nogs.data import load
from nogs.engine import check_engine
from nogs.errors import UserError
from nogs.evaluation.schema import CNNScores, Results, read_results
from nogs.evaluation.typed_json import to_json
from nogs.runs.device import choose_device
from nogs.runs.directory import RunDirectory, finished_run, open_run, read_run
from nogs.runs.extend import extend_run
from nogs.runs.identity import as_json, first_difference
from nogs.runs.progress import Numbering
from nogs.sequences.table import check_sequences
from nogs.specs import PosteriorSpec, check_one_level, grid_of
from nogs.stages.baselines import fit_baselines
from nogs.stages.build_bank import build_bank
from nogs.stages.evaluate import evaluate
from nogs.stages.fit_posterior import fit_posterior
from nogs.stages.report import draw_report
from nogs.stages.search import search
from nogs.trainings import run_trainings, trained_by, within
from nogs.weights import read_spec

POSTERIOR_BATCH = 128
POSTERIOR_LEARNING_RATE = 2e-3


def run(config: Run) -> RunDirectory:
    """Run the pipeline of ``config``; leave results.json and report.html in its directory.

    Resumed with more methods, seeds, iterations or patience, or with CNNs, it does what is missing.
    """
    if config.machine.resume:
        extend_run(config.machine.out, "run", config, outdated=_outdated(config))
    if finished := finished_run(config.machine.out, "run", config, resume=config.machine.resume):
        return finished
    check(config)
    directory = open_run(config.machine.out, "run", config, resume=config.machine.resume)
    numbering = Numbering(_numbered_stages(config))
    sequences = path = None
    if needs_search(config):
        searched = _searched(config, numbering)
        sequences, path = searched.path, _searched_path(config, searched, numbering)
    trained = [trained_by(config, name, seed, sequences, path) for seed in config.seeds for name in config.methods]
    with numbering.next():
        run_trainings(config, trained)
    models = tuple(one.training.machine.out for one in trained)
    stopping = tuple(one.stopping.machine.out for one in trained if one.stopping)
    with numbering.next():
        evaluation = evaluate(Evaluate(within(config, Evaluate), models, sequences, stopping=stopping))
    results = read_results(evaluation, Results)
    if config.cnns or config.cnn_sizes:
        with numbering.next():
            cnns = fit_baselines(baselines_of(config))
        results = results.with_cnns(read_results(cnns, CNNScores))
    directory.save_json("results.json", to_json(results))
    draw_report(Report(directory.path))
    directory.finish()
    return directory


def _outdated(config: Run) -> dict[str, tuple[str, ...]]:
    """Return the fields that may grow at a resumption, and the directories that are made again if they do."""
    evaluation = (stage_of(Evaluate).directory,)
    trained = (*evaluation, *(stage_of(stage).directory for stage in (FitStopping, Record, Baselines)))
    imitators = [name for name in config.methods if method(name).sequences == "record"]
    restarted = [name for name in config.methods if scheduled(name, config.schedule)]
    grown = {"iterations": {*imitators, *restarted}, "patience": imitators}
    return dict.fromkeys(("methods", "seeds", "cnns"), evaluation) | {
        field: (
            *trained,
            *(f"{stage_of(Train).directory}/{name}-seed{seed}" for name in names for seed in config.seeds),
        )
        for field, names in grown.items()
    }


def _numbered_stages(config: Run) -> int:
    """Return the number of stages that show progress: trainings and evaluation, and those that are needed."""
    design = 1 + (not config.posterior) + (not config.bank) + _needs_path(config) if needs_search(config) else 0
    return 2 + design + bool(config.cnns or config.cnn_sizes)


def needs_search(config: Run) -> bool:
    """Return whether a method learns from designed sequences, or a posterior is given to be scored."""
    return bool(config.posterior) or any(method(name).sequences in ("search", "path") for name in config.methods)


def _searched(config: Run, numbering: Numbering) -> RunDirectory:
    """Return the search, from a posterior and a bank that are given or made here."""
    if config.posterior:
        posterior = read_run(config.posterior, "fit-posterior")
    else:
        with numbering.next():
            posterior = fit_posterior(posterior_of(config))
    if config.bank:
        bank = read_run(config.bank, "build-bank")
    else:
        with numbering.next():
            bank = build_bank(bank_of(config))
    searching = Search(
        within(config, Search),
        posterior.path,
        bank.path,
        task=config.source.task if read_spec(posterior, "model", kind=PosteriorSpec).multilabel else None,
        pooling=config.pooling,
        strategy=config.strategy,
        engine=config.engine,
        jobs=config.jobs,
    )
    with numbering.next():
        return search(searching)


def posterior_of(config: Run) -> FitPosterior:
    """Return the fit of the posterior that sequences are designed with, of all labels if no task is chosen."""
    return FitPosterior(
        within(config, FitPosterior),
        config.source,
        config.geometry,
        optimisation=Optimisation(config.posterior_iterations, POSTERIOR_BATCH, POSTERIOR_LEARNING_RATE, 250),
        annotate=config.annotate,
    )


def bank_of(config: Run) -> BuildBank:
    """Return the bank of images that partly seen ones are completed from."""
    return BuildBank(within(config, BuildBank), config.source, mirror=config.mirror)


def _needs_path(config: Run) -> bool:
    """Return whether a method needs a second search, for one path, because the first is not pooled completely."""
    return config.pooling != 1 and any(method(name).sequences == "path" for name in config.methods)


def _searched_path(config: Run, sequences: RunDirectory, numbering: Numbering) -> Path:
    """Return the search whose sequences are one path: ``sequences`` itself with ``pooling=1``, else one beside it.

    The second search uses the same posterior and bank. It runs only if a method needs it.
    """
    if not _needs_path(config):
        return sequences.path
    how = sequences.config
    searching = Search(
        within(config, "path"),
        Path(how["posterior"]),
        Path(how["bank"]),
        task=how["task"],
        pooling=1.0,
        strategy=config.strategy,
        engine=config.engine,
        jobs=config.jobs,
    )
    with numbering.next():
        return search(searching).path


def check(config: Run) -> None:
    """Check the whole configuration before anything is written or computed. Raises UserError."""
    check_engine(config.engine)
    check_detail(config.gains, config.geometry)
    for name in config.methods:
        method(name)
    check_distinct(config, "methods", "seeds")
    _check_sequences(config)
    choose_device(config.machine.device)
    data = load(config.source)
    data.check_one_label()
    grid_of(config.geometry, data)
    if needs_search(config):
        check_one_level(config.geometry)
    if config.posterior:
        _check_posterior(config, config.posterior)
    if config.bank:
        indexed = read_run(config.bank, "build-bank").config["source"]
        if difference := first_difference(indexed, {**as_json(config.source), "task": indexed["task"]}):
            raise UserError(f"bank={config.bank} was built with another {difference}: build it from the same images")


def _check_posterior(config: Run, given: Path) -> None:
    """Check that a given posterior has these images, task and grid, and was not fitted to the images to annotate."""
    fitted = read_run(given, "fit-posterior")
    wanted = {**as_json(config.source), **as_json(config.geometry), "annotate": config.annotate}
    had = {**fitted.config["source"], **fitted.config["geometry"], "annotate": fitted.config["annotate"]}
    if read_spec(fitted, "model", kind=PosteriorSpec).multilabel:
        wanted["task"] = had["task"]
    if difference := first_difference(had, wanted):
        raise UserError(f"posterior={given} was fitted with another {difference}: fit it to the same")


def _check_sequences(config: Run) -> None:
    """Check that the sequences of every method will exist when its training starts."""
    wants = {method(name).sequences: name for name in reversed(config.methods)}
    if "record" in wants and REFERENCE not in config.methods:
        raise UserError(f"{wants['record']} learns from {METHODS[REFERENCE].title}: add {REFERENCE} to `methods`")
    if "given" not in wants:
        if config.sequences:
            raise UserError(f"sequences={config.sequences}: no method learns from it; add ps-hgs to `methods`")
        return
    if config.sequences is None:
        raise UserError(
            f"{wants['given']} learns from sequences that you give: add `sequences`, a run of `nogs sequences import`"
        )
    check_sequences(read_run(config.sequences, "sequences import"), as_json(config.source), as_json(config.geometry))


def baselines_of(config: Run) -> Baselines:
    """Return the CNNs, each trained on as many images as an attention network, with the same patience.

    They are the whole grid with ``cnns``, else one for each of ``cnn_sizes``.
    """
    ratio = config.batch_size / Baselines.batch_size
    iterations, patience = (ceil(count * ratio) for count in (config.iterations, config.patience))
    whole = Baselines(within(config, Baselines), config.source, iterations=iterations, patience=patience)
    if config.cnns:
        return whole
    return replace(
        whole,
        architectures=("mobilenet-v2",),
        resolutions=config.cnn_sizes,
        widths=(0.25,),
        learning_rates=(4e-3,),
        upper_bound=False,
    )
