"""`nogs tune`: architecture search by Optuna, with validation accuracy and multiply-adds as the objective.

One objective, accuracy - λ log(multiply-adds), is searched by a tree-structured Parzen estimator (Bergstra et al.
2011), and trials that fall behind are stopped by Hyperband (Li et al. 2018). With ``front`` the estimator searches for
the Pareto front of both, and no trial is stopped. Trials are in Optuna's journal, a file of JSON lines in the run
directory, so a search that was stopped goes on. The trials that were running then are done anew.

Trial k is drawn with the seed ``seed`` + k from what was found until then. With ``jobs`` > 1 trials run side by side in
processes that share the journal. The estimator then takes trials that are running for bad ones (the constant liar of
Ginsbourger et al. 2010), so that trials side by side do not try the same.
"""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nogs.attention.methods import method
from nogs.config.bounds import check_distinct
from nogs.config.groups import AttentionNetwork, Geometry, Optimisation, Schedule
from nogs.config.stages import Evaluate, Train
from nogs.config.table import stage_of
from nogs.config.tune import Tune
from nogs.data import ImageSet, load
from nogs.errors import UserError
from nogs.evaluation.cost import macs_by_glimpse
from nogs.evaluation.schema import CNNScores, Results, read_results
from nogs.evaluation.tuned import SCHEMA, Trial, TuneResults, front
from nogs.evaluation.typed_json import to_json
from nogs.jobs import Job, run_jobs
from nogs.report.tune_page import build_tune
from nogs.runs.directory import RunDirectory, finished_run, open_run, read_run
from nogs.runs.extend import extend_run
from nogs.runs.lock import unlock
from nogs.runs.progress import Tick, ticking
from nogs.specs import HardAttentionSpec, grid_of
from nogs.stages.evaluate import evaluate
from nogs.stages.train import train
from nogs.trainings import at_once, progress_of

if TYPE_CHECKING:
    import optuna

JOURNAL, TRIALS = "trials.jsonl", "trials"
"""Optuna's journal, and the folder of the trials that are running."""
NUMBER = "k"
"""Name of k among what Optuna stores of a trial, whose own numbers count trials that failed too."""
DRAWS = 100
"""Draws of an architecture of which one has to be a valid network."""
RANDOM_TRIALS = 10
"""Trials that are drawn at random before the estimator has enough to go by."""


class Candidate(NamedTuple):
    """An architecture, its learning rate, and the multiply-adds of an image after all glimpses."""

    geometry: Geometry
    hidden: int
    learning_rate: float
    macs: int


def tune(config: Tune, tick: Tick | None = None) -> RunDirectory:
    """Search, train the best network anew, evaluate it, and write tune.json and tune.html.

    Raises UserError without Optuna, for a method that needs sequences, and for options that make no network.
    """
    _check_optuna()
    if method(config.method, argument="method").sequences != "none":
        raise UserError(f"method={config.method} learns from sequences of one geometry: choose ram, gain or another")
    cnns = read_results(read_run(config.cnns, "baselines"), CNNScores).cnn_means if config.cnns else ()
    if config.machine.resume:
        trained = stage_of(Train).directory, stage_of(Evaluate).directory
        extend_run(config.machine.out, "tune", config, outdated={"trials": trained})
    if finished := finished_run(config.machine.out, "tune", config, resume=config.machine.resume):
        return finished
    data = load(config.source)
    data.check_one_label()
    space = _Space(config, data)
    run = open_run(config.machine.out, "tune", config, resume=config.machine.resume)
    study = _study(config)
    _fail_running(study)
    shutil.rmtree(run.path / TRIALS, ignore_errors=True)
    left = sorted(set(range(config.trials)) - _finished(study).keys())
    if (side_by_side := at_once(config)) > 1:
        run_jobs([_job_of(config, k) for k in left], at_once=side_by_side, whole=f"tune {config.method}")
    with ticking(f"tune {config.method}", config.trials + 1, tick) as report:
        for k in left if side_by_side == 1 else ():
            _try(config, study, space, k, partial(report, k))
        shutil.rmtree(run.path / TRIALS, ignore_errors=True)
        tried = list(_finished(study).values())
        trials = tuple(map(_trial_of, tried))
        best = max(range(len(trials)), key=lambda i: _worth(trials[i].validation_accuracy, trials[i].macs, config))
        chosen = space.candidate(tried[best].params)
        folder = run.path / stage_of(Train).directory / f"{config.method}-seed{config.seed}"
        final = train(
            _training(config, chosen, folder, config.final_iterations, config.schedule),
            lambda done, note: report(config.trials, f"the best: {done} of {config.final_iterations}, {note}"),
        )
    machine = replace(config.machine, out=run.path / stage_of(Evaluate).directory, resume=True)
    evaluation = evaluate(Evaluate(machine, (final.path,)), lambda *_: None)
    test_accuracy = read_results(evaluation, Results).methods[config.method].test_accuracy[0]
    results = TuneResults(
        SCHEMA,
        config.source.data,
        config.source.task,
        config.method,
        config.cost_weight,
        trials,
        best,
        front(trials),
        test_accuracy,
        cnns,
    )
    run.save_json("tune.json", to_json(results))
    run.save_text("tune.html", build_tune(results, run.provenance).html)
    run.finish(inputs={str(final.path): final.hash_of("model.safetensors")})
    return run


class _Space:
    """The architectures to choose from, on one set of images."""

    def __init__(self, config: Tune, data: ImageSet) -> None:
        self.config, self.data = config, data
        check_distinct(config, "glimpse_sizes", "strides", "glimpses", "scales", "overviews", "hidden")
        rates = config.learning_rates
        if len(rates) != 2 or not rates[0] <= rates[1]:
            raise UserError(
                f"learning_rates={','.join(map(str, rates))}: give the lowest and the highest, as 5e-4,5e-3"
            )
        image_px = data.images.shape[-1]
        for name in ("glimpse_sizes", "overviews"):
            if max(getattr(config, name)) > image_px:
                raise UserError(f"{name}={max(getattr(config, name))} exceeds image_px={image_px}: choose at most that")

    def suggest(self, trial: optuna.Trial) -> None:
        """Draw the parameters of a trial."""
        for name, values in self._choices.items():
            trial.suggest_categorical(name, values)
        trial.suggest_float("learning_rate", *self.config.learning_rates, log=True)

    def candidate(self, parameters: dict[str, Any]) -> Candidate:
        """Return the architecture of a trial. Raises UserError if its parameters make no network."""
        of = parameters
        geometry = Geometry(of["glimpse_size"], of["stride"], of["glimpses"], of["scales"], of["overview"])
        grid = grid_of(geometry, self.data)
        channels, T = self.data.images.shape[1], geometry.glimpses
        spec = HardAttentionSpec(
            grid,
            channels,
            self.data.classes,
            of["hidden"],
            T,
            self.config.method,
            overview_px=geometry.overview,
        )
        policy = method(self.config.method).policy != "none"
        macs = macs_by_glimpse(spec.build(), channels=channels, glimpses=T, policy=policy)[-1]
        return Candidate(geometry, of["hidden"], of["learning_rate"], macs)

    @property
    def _choices(self) -> dict[str, tuple[int, ...]]:
        c = self.config
        return {
            "glimpse_size": c.glimpse_sizes,
            "stride": c.strides,
            "glimpses": c.glimpses,
            "scales": c.scales,
            "overview": c.overviews,
            "hidden": c.hidden,
        }


def _job_of(config: Tune, k: int) -> Job:
    """Return trial k as a job."""
    return Job(f"trial {k}", partial(_try_in_worker, config, k), partial(_progress_of, config, k), config.iterations)


def _try_in_worker(config: Tune, k: int, tick: Tick) -> None:
    """Do trial k in a process of its own, which opens the study of the search. ``tick`` is left to the parent."""
    _try(config, _study(config), _Space(config, load(config.source)), k, lambda note: None)


def _progress_of(config: Tune, k: int) -> tuple[int, str]:
    """Return the iterations of trial k so far and a note on its loss."""
    with suppress(OSError, UserError):  # a trial that ends removes its folder
        return progress_of(_folder_of(config, k))
    return 0, ""


def _folder_of(config: Tune, k: int) -> Path:
    """Return the run directory of trial k, which exists while the trial runs."""
    return config.machine.out / TRIALS / str(k)


def _try(config: Tune, study: optuna.Study, space: _Space, k: int, show: Callable[[str], None]) -> None:
    """Draw the architecture of trial k, train it, and report it to the study. ``show``: takes a note on progress."""
    import optuna

    trial, candidate = _drawn(config, study, space, k)
    folder = _folder_of(config, k)
    training, rows = RunDirectory(folder), 0

    def tick(done: int, note: str) -> None:
        nonlocal rows
        show(f"{candidate.macs:,} multiply-adds, {done} of {config.iterations} iterations, {note}")
        if config.front or done % config.validate_every:
            return
        found = training.rows() if training.exists else []
        if len(found) > rows:
            rows = len(found)
            trial.report(_worth(max(row["accuracy"] for row in found), candidate.macs, config), found[-1]["iteration"])
            if trial.should_prune():
                raise optuna.TrialPruned

    pruned = False
    try:
        train(_training(config, candidate, folder, config.iterations, "constant"), tick)
    except optuna.TrialPruned:
        pruned = True
    best = max(training.rows(), key=lambda row: row["accuracy"])
    trial.set_user_attr("macs", candidate.macs)
    trial.set_user_attr("accuracy", best["accuracy"])
    trial.set_user_attr("iterations", training.rows()[-1]["iteration"])
    trial.set_user_attr("pruned", pruned)
    unlock(folder)
    shutil.rmtree(folder)
    if pruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    elif config.front:
        study.tell(trial, (best["accuracy"], math.log(candidate.macs)))
    else:
        study.tell(trial, _worth(best["accuracy"], candidate.macs, config))


def _drawn(config: Tune, study: optuna.Study, space: _Space, k: int) -> tuple[optuna.Trial, Candidate]:
    """Return trial k of the study and its architecture. Parameters that make no valid network are drawn anew.

    Raises UserError if `DRAWS` draws make none.
    """
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of the constant liar
        study.sampler = optuna.samplers.TPESampler(
            seed=config.seed + k, n_startup_trials=RANDOM_TRIALS, constant_liar=at_once(config) > 1
        )
    for _ in range(DRAWS):
        trial = study.ask()
        trial.set_user_attr(NUMBER, k)
        space.suggest(trial)
        try:
            return trial, space.candidate(trial.params)
        except UserError as error:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            reason = error
    raise UserError(f"the options make no valid network in {DRAWS} draws; the last: {reason}")


def _worth(accuracy: float, macs: int, config: Tune) -> float:
    """Return the objective: accuracy - λ log(multiply-adds)."""
    return accuracy - config.cost_weight * math.log(macs)


def _training(config: Tune, candidate: Candidate, folder: Path, iterations: int, schedule: Schedule) -> Train:
    return Train(
        replace(config.machine, out=folder, resume=True),
        config.source,
        candidate.geometry,
        Optimisation(
            iterations,
            config.batch_size,
            candidate.learning_rate,
            min(config.validate_every, iterations),
            patience=0,
            seed=config.seed,
            schedule=schedule,
        ),
        method=config.method,
        network=AttentionNetwork(candidate.hidden),
    )


def _study(config: Tune) -> optuna.Study:
    """Open the study of the journal in the run directory, or make it."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # Optuna's lock is a link to this path, which must not be relative to the working directory.
    journal = str((config.machine.out / JOURNAL).absolute())
    return optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(journal)),
        study_name="tune",
        load_if_exists=True,
        directions=["maximize", "minimize"] if config.front else ["maximize"],
        pruner=optuna.pruners.HyperbandPruner(
            min_resource=config.validate_every, max_resource=max(config.iterations, config.validate_every)
        ),
    )


def _fail_running(study: optuna.Study) -> None:
    """Mark the trials that were running when the search was stopped as failed."""
    import optuna

    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)


def _finished(study: optuna.Study) -> dict[int, optuna.trial.FrozenTrial]:
    """Return k → trial k of those that were trained, those that were stopped early included, in the order of k."""
    import optuna

    done = study.get_trials(states=(optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED))
    return {trial.user_attrs[NUMBER]: trial for trial in sorted(done, key=lambda trial: trial.user_attrs[NUMBER])}


def _trial_of(found: optuna.trial.FrozenTrial) -> Trial:
    of = found.user_attrs
    return Trial(
        **found.params,
        macs=of["macs"],
        validation_accuracy=of["accuracy"],
        iterations=of["iterations"],
        pruned=of["pruned"],
    )


def _check_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError("`nogs tune` needs Optuna: install nogs[tune]") from None
