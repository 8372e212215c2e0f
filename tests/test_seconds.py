"""Seconds from nothing to the target, from logs whose sums are worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nogs
from nogs.evaluation.inputs import seconds_before
from nogs.evaluation.seconds import Seconds, end_to_end, wall_seconds
from nogs.runs.directory import RunDirectory, open_run
from nogs.runs.marker import write_marker


def log(*losses: float, pace: float) -> list[dict[str, float]]:
    """A validation every 100 iterations, ``pace`` seconds with it and half of that without."""
    return [
        {"iteration": 100 * i, "seconds": pace / 2 * i, "wall_seconds": pace * i, "nll_nats": nll}
        for i, nll in enumerate(losses, 1)
    ]


LOGS = {
    "ram": [log(0.9, 0.5, 0.6, pace=2.0), log(0.9, 0.8, 0.7, pace=2.0)],
    "ps-nogs": [log(0.5, 0.4, pace=3.0), log(0.8, 0.6, 0.4, pace=3.0)],
    "ps-ram": [log(0.5, pace=2.0), log(0.4, pace=4.0)],
    "ps-hgs": [log(0.5, pace=2.0)],
}
SEARCHED = {"posterior": 20.0, "bank": 1.0, "search": 10.0}
BEFORE: dict[str, list[dict[str, float] | None]] = {
    "ram": [{}, {}],
    "ps-nogs": [SEARCHED, SEARCHED],
    "ps-ram": [{"teacher": 6.0, "recording": 1.0}, {"teacher": 8.0, "recording": 2.0}],
    "ps-hgs": [None],
}


def test_sums_by_hand() -> None:
    """To 0.51 nats: RAM arrives after 4 s, and never in 6; PS-NOGS after 3 and 9; PS-RAM after 2 and 4."""
    assert end_to_end(LOGS, BEFORE, 0.51) == {
        "ram": Seconds(None, None, 5.0, 5.0, (True, False)),
        "ps-nogs": Seconds(6.0, 37.0, 6.0, 37.0, (True, True), **SEARCHED),
        "ps-ram": Seconds(3.0, 11.5, 3.0, 11.5, (True, True), teacher=7.0, recording=1.5),
    }


def test_without_a_target_there_are_no_seconds_to_it() -> None:
    assert end_to_end(LOGS, BEFORE, None) == {}


def test_wall_seconds_are_of_the_log_or_else_from_the_last_start_to_the_end() -> None:
    times = {"started": "2020-01-01T00:00:00+00:00", "finished": "2020-01-01T01:00:05+00:00"}
    assert wall_seconds(log(0.9, 0.5, pace=2.0), times) == 4.0
    assert wall_seconds([{"name": "a", "seconds": 1.5}, {"name": "b", "seconds": 0.25}], times) == 1.75
    assert wall_seconds([], times) == 3605
    resumed = ["2020-01-01T00:30:00+00:00", "2020-01-01T01:00:00+00:00"]
    assert wall_seconds([], {**times, "resumed": resumed}) == 5


def run_that_took(config: Any, stage: str, *rows: dict[str, float]) -> RunDirectory:
    run = open_run(config.machine.out, stage, config, resume=False)
    for row in rows:
        run.log(**row)
    run.finish()
    return run


def test_the_parts_before_a_training_are_counted(tmp_path: Path) -> None:
    """By the runs that its sequences name; those that were imported, or are gone, have no known cost."""

    def at(name: str) -> nogs.Machine:
        return nogs.Machine(tmp_path / name)

    def trained(name: str, sequences: str | None) -> RunDirectory:
        config = nogs.Train(at(name), method=name, sequences=tmp_path / sequences if sequences else None)
        return run_that_took(config, "train", *log(0.9, 0.5, pace=2.0))

    fitted = run_that_took(nogs.FitPosterior(at("posterior")), "fit-posterior", *log(0.9, 0.5, pace=10.0))
    bank = run_that_took(nogs.BuildBank(at("bank")), "build-bank")
    bank.save_json("provenance.json", {"started": "2020-01-01T00:00:00+00:00", "finished": "2020-01-01T00:00:07+00:00"})
    write_marker(bank.path)
    chunks = [{"seconds": 1.5}, {"seconds": 2.0}]
    run_that_took(nogs.Search(at("sequences"), fitted.path, bank.path), "search", *chunks)
    ram = trained("ram", None)
    recorded = run_that_took(nogs.Record(at("recorded"), ram.path), "record")
    recorded.save_json(
        "provenance.json", {"started": "2020-01-01T00:00:00+00:00", "finished": "2020-01-01T00:01:00+00:00"}
    )
    write_marker(recorded.path)
    run_that_took(nogs.ImportSequences(at("given")), "sequences import")
    assert seconds_before(ram) == {}
    assert seconds_before(trained("ps-nogs", "sequences")) == {"posterior": 20.0, "bank": 7.0, "search": 3.5}
    assert seconds_before(taught := trained("ps-ram", "recorded")) == {"teacher": 4.0, "recording": 60.0}
    assert seconds_before(trained("ps-hgs", "given")) is None
    (ram.path / "COMPLETE").unlink()
    assert seconds_before(taught) is None
