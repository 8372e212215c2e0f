"""`nogs tune`: architecture search by Optuna, with validation accuracy and multiply-adds as the objective.

One objective, accuracy - λ log(multiply-adds), is searched by a tree-structured Parzen estimator (Bergstra et al.
2011), and trials that fall behind are stopped by Hyperband (Li et al. 2018). With ``front`` the estimator searches for
the Pareto front of both, and no trial is stopped. Trials are in Optuna's journal, a file of JSON lines in the run
directory, so a search that was stopped goes on. The trial that was running then is done anew.

Trial k is drawn with the seed ``seed`` + k from what the trials before it found.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
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
from nogs.report.tune_page import build_tune
from nogs.runs.directory import RunDirectory, finished_run, open_run, read_run
from nogs.runs.extend import extend_run
from nogs.runs.lock import unlock
from nogs.runs.progress import Tick, ticking
from nogs.specs import HardAttentionSpec, grid_of
from nogs.stages.evaluate import evaluate
from nogs.stages.train import train

if TYPE_CHECKING:
    import optuna

JOURNAL = "trials.jsonl"
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
    study = _study(config, run.path / JOURNAL)
    with ticking(f"tune {config.method}", config.trials + 1, tick) as report:
        while (k := len(_finished(study))) < config.trials:
            study.sampler = _sampler(config, k)
            _try_one(config, study, space, k, report)
        tried = _finished(study)
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


def _try_one(config: Tune, study: optuna.Study, space: _Space, k: int, report: Tick) -> None:
    """Draw an architecture, train it, and report it to the study. One that makes no valid network is drawn anew."""
    import optuna

    trial = study.ask()
    space.suggest(trial)
    try:
        candidate = space.candidate(trial.params)
    except UserError:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    folder = config.machine.out / "trial"
    shutil.rmtree(folder, ignore_errors=True)
    training, rows = RunDirectory(folder), 0

    def tick(done: int, note: str) -> None:
        nonlocal rows
        report(k, f"{candidate.macs:,} multiply-adds, {done} of {config.iterations} iterations, {note}")
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


def _study(config: Tune, journal: Path) -> optuna.Study:
    """Open the study of a journal. A trial that was running when the search was stopped failed."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal))),
        study_name="tune",
        load_if_exists=True,
        directions=["maximize", "minimize"] if config.front else ["maximize"],
        pruner=optuna.pruners.HyperbandPruner(
            min_resource=config.validate_every, max_resource=max(config.iterations, config.validate_every)
        ),
    )
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that were trained, those that were stopped early included, in their order."""
    import optuna

    done = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED
    return study.get_trials(deepcopy=False, states=done)


def _sampler(config: Tune, k: int) -> optuna.samplers.BaseSampler:
    import optuna

    return optuna.samplers.TPESampler(seed=config.seed + k, n_startup_trials=RANDOM_TRIALS)


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
