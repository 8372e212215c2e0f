"""`nogs bench`: tasks of a TOML file, a run directory each, one page, one table; what is missing is computed later."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import nogs
from nogs.attention.gain import learned_gain
from nogs.attention.methods import METHODS, OBJECTIVES, Method
from nogs.attention.train_step import Objective, Training
from nogs.benchmark import BUILT_IN, bench, read_tasks
from nogs.errors import UserError
from nogs.evaluation.bench import SCHEMA, BenchMethod, BenchResults, BenchTask, Validated
from nogs.evaluation.typed_json import from_json
from nogs.report.bench_page import bench_table, build_bench, lead_of_bench, print_bench, table_of_many
from nogs.runs.directory import RunDirectory
from tiny import GLIMPSE_PX, STRIDE_PX, T, driver, write_npz

COMMON = f"""
glimpse-size = {GLIMPSE_PX}
stride = {STRIDE_PX}
glimpses = {T}
iterations = 20
batch_size = 16
validate_every = 10
"""
PLAIN = """
[plain]
data = "npz:images.npz"
"""
WIDE = """
[wide]
data = "npz:images.npz"
overview = 4
iterations = 30
"""


def tasks_in(folder: Path, text: str) -> Path:
    write_npz(folder / "images.npz")
    write_npz(folder / "labels.npz", multilabel=True)
    (folder / "tasks.toml").write_text(COMMON + text)
    return folder / "tasks.toml"


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> nogs.Bench:
    """One task and one method, then a further task, method and seed."""
    folder = tmp_path_factory.mktemp("bench")
    tasks = tasks_in(folder, PLAIN)
    config = nogs.Bench(nogs.Machine(folder / "out"), tasks, methods=("gain",), seeds=(0,), jobs=1)
    bench(config)
    trained = folder / "out" / "plain" / "train" / "gain-seed0" / "model.safetensors"
    before = trained.stat().st_mtime_ns
    tasks_in(folder, PLAIN + WIDE)
    more = replace(
        config, machine=replace(config.machine, resume=True), methods=("random", "ram", "gain"), seeds=(0, 1)
    )
    bench(more)
    assert trained.stat().st_mtime_ns == before
    return more


@pytest.mark.slow
def test_every_method_is_trained_on_every_task_with_every_seed(done: nogs.Bench) -> None:
    out = done.machine.out
    assert RunDirectory(out).complete
    assert read(out / "config.json")["methods"] == ["random", "ram", "gain"]
    for task, overview_px, iterations in (("plain", 0, 20), ("wide", 4, 30)):
        names = {path.name for path in (out / task / "train").iterdir()}
        assert names == {f"{method}-seed{seed}" for method in done.methods for seed in done.seeds}
        config = read(out / task / "config.json")
        assert (config["geometry"]["overview"], config["iterations"]) == (overview_px, iterations)


@pytest.mark.slow
def test_the_figures_are_those_of_the_runs(done: nogs.Bench) -> None:
    tasks = read(done.machine.out / "bench.json")["tasks"]
    assert list(tasks) == ["plain", "wide"]
    for task, found in tasks.items():
        results = read(done.machine.out / task / "results.json")
        assert list(found["methods"]) == list(done.methods)
        for method, scores in found["methods"].items():
            of_run = results["methods"][method]
            for key in scores.keys() - {"mean_test_accuracy", "learning", "iterations_to_target"}:
                assert scores[key] == of_run[key], key
            raced = results["target_nll_nats"] is not None and not results["target_is_chance"]
            assert scores.get("iterations_to_target", []) == (of_run["iterations_to_target"] if raced else [])
            assert scores["mean_test_accuracy"] == pytest.approx(sum(scores["test_accuracy"]) / 2)
            for seed, learning in zip(scores["seeds"], scores["learning"], strict=True):
                log = (done.machine.out / task / "train" / f"{method}-seed{seed}" / "log.jsonl").read_text()
                rows = [json.loads(line) for line in log.splitlines()]
                assert learning == [[row["wall_seconds"], row["accuracy"]] for row in rows]
        assert found["whole_images"] == [results["linear"]]


@pytest.mark.slow
def test_the_page_and_the_table_have_every_task_and_method(
    done: nogs.Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (done.machine.out / "bench.html").read_text()
    assert page.count("<img") == 1
    assert page.count("<table>") == 1
    print_bench(done.machine.out)
    printed = capsys.readouterr().out
    for title in ("plain: Random cells", "plain: RAM", "wide: Learned gain", "wide: Logistic regression, 16 px"):
        assert title in page
        words = title.partition(",")[0].split()  # a narrow terminal breaks lines between them
        assert all(word in printed for word in words)
    assert printed.splitlines()[-1] == f"report: {done.machine.out / 'bench.html'}"
    results = from_json(BenchResults, read(done.machine.out / "bench.json"))
    lines = {line.title: [cell.summary for cell in line.cells] for line in bench_table(results).lines}
    shares = [seed[-1] for seed in results.tasks["wide"].methods["gain"].pixels_read_share_by_glimpse]
    assert lines["wide: Learned gain"][2] == f"{50 * sum(shares):.1f} %"
    whole = lines["wide: Logistic regression, 16 px"]
    assert whole[2:] == ["100.0 %", "–", "–"]  # 16 pixels are few enough for logistic regression


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (PLAIN + "glimpse = 8\n", r"^task plain: glimpse is no option of `nogs run`; did you mean glimpses\?$"),
        (PLAIN + "overview = 'wide'\n", r"^task plain: overview='wide': expected int$"),
        (PLAIN + "batch_size = 0\n", r"^task plain: batch_size=0: must be at least 1$"),
        (
            PLAIN + "methods = ['ram']\n",
            r"^task plain: methods is the same for all tasks: give `methods` to `nogs bench`",
        ),
        (PLAIN + "fit = 'bent'\n", r"^task plain: fit='bent'"),
        (PLAIN + "task = 'Smiling'\n", r"^task plain: .*Smiling"),
        ("[plain]\ndata = 'npz:other.npz'\n", r"^task plain: .*other\.npz"),
        ("['a/b']\ndata = 'digits'\n", r"tasks\.toml: task 'a/b' names a directory"),
        ("", r"tasks\.toml has no task: give each a table"),
        ("[plain", r"tasks\.toml is not TOML: "),
        (PLAIN + "task = '*'\n", r"^task plain: task=\*: these images have one label only; leave it out$"),
        (
            '[a]\ndata = "npz:labels.npz"\ntask = "*"\n[a-across]\ndata = "npz:images.npz"',
            "two tasks have the name a-across",
        ),
    ],
)
def test_an_invalid_task_is_refused_before_anything_is_written(tmp_path: Path, text: str, complaint: str) -> None:
    config = nogs.Bench(nogs.Machine(tmp_path / "out"), tasks_in(tmp_path, text), methods=("ram",))
    with pytest.raises(UserError, match=complaint):
        bench(config)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text", "engine"), [(PLAIN, "spark"), (PLAIN + "engine = 'dask'\n", "dask")])
def test_the_engine_of_a_bench_is_that_of_tasks_without_one(tmp_path: Path, text: str, engine: str) -> None:
    config = nogs.Bench(nogs.Machine(tmp_path / "out"), tasks_in(tmp_path, text), methods=("ram",), engine="spark")
    with pytest.raises(UserError, match=f"^task plain: engine={engine} does not exist"):
        bench(config)


def test_a_method_that_a_task_cannot_have_names_the_task(tmp_path: Path) -> None:
    config = nogs.Bench(nogs.Machine(tmp_path / "out"), tasks_in(tmp_path, PLAIN), methods=("ps-hgs",))
    with pytest.raises(UserError, match=r"^task plain: ps-hgs learns from sequences that you give"):
        bench(config)


@pytest.mark.slow
def test_all_labels_of_a_set_share_one_posterior_and_one_bank(tmp_path: Path) -> None:
    """A training of a label is the one that `nogs run` has from the same posterior and bank."""
    options = 'data = "npz:labels.npz"\ntask = "*"\nannotate = 20\nposterior_iterations = 20\nstopping = false\n'
    tasks = tasks_in(tmp_path, f"[all]\n{options}")
    how = {"methods": ("ps-nogs", "path"), "seeds": (0,), "jobs": 1}
    out = tmp_path / "out"
    bench(nogs.Bench(nogs.Machine(out), tasks, **how))
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["all", "all-across", "all-striped"]
    shared = {path.name for path in (out / "all").iterdir()}
    assert shared == {"posterior", "bank"}
    assert read(out / "all" / "posterior" / "config.json")["source"]["task"] is None
    for label in ("striped", "across"):
        config = read(out / f"all-{label}" / "config.json")
        assert config["source"]["task"] == label
        assert not (out / f"all-{label}" / "posterior").exists()
    given = {
        "geometry": nogs.Geometry(glimpse_size=GLIMPSE_PX, stride=STRIDE_PX, glimpses=T),
        "annotate": 20,
        "iterations": 20,
        "batch_size": 16,
        "validate_every": 10,
        "stopping": False,
        "posterior": out / "all" / "posterior",
        "bank": out / "all" / "bank",
    }
    source = nogs.Source(f"npz:{tmp_path / 'labels.npz'}", task="across")
    nogs.run(nogs.Run(nogs.Machine(tmp_path / "alone"), source, **given, **how))
    model = Path("train", "ps-nogs-seed0", "model.safetensors")
    assert (tmp_path / "alone" / model).read_bytes() == (out / "all-across" / model).read_bytes()
    assert list(read(out / "bench.json")["tasks"]) == ["all-striped", "all-across"]


def many(tasks: int) -> BenchResults:
    """RAM and one path on tasks 0, 1, ...: the path is ahead on all but task 0; RAM never gets to the target on 1."""

    def method(accuracy: float, balanced: float, iterations: int | None) -> BenchMethod:
        by_glimpse = ((0.5, accuracy),)
        learning = ((Validated(1.0, 0.5), Validated(2.0, accuracy)),)
        return BenchMethod(
            (0,),
            (accuracy,),
            accuracy,
            by_glimpse,
            ((0.0, 0.0),),
            ((0.1, 0.2),),
            (10, 20),
            learning,
            (balanced,),
            (iterations,),
        )

    return BenchResults(
        SCHEMA,
        {
            f"task-{k}": BenchTask(
                "npz:x",
                str(k),
                16,
                30,
                {"ram": method(0.8, 0.6, None if k == 1 else 300), "path": method(0.7 if k == 0 else 0.9, 0.7, 1200)},
                commonest_class_share=0.75,
            )
            for k in range(tasks)
        },
    )


def test_many_tasks_have_a_line_each() -> None:
    results = many(10)
    assert lead_of_bench(results) == [
        "Of 10 tasks, the most accurate is RAM on 1 and One designed path on 9; ties count for all.",
        "Mean test accuracy over tasks, balanced accuracy in brackets: "
        "RAM 80.0 % (60.0 %) and One designed path 88.0 % (70.0 %).",
    ]
    table = table_of_many(results)
    assert [line.title for line in table.lines] == list(results.tasks)
    cells = [(cell.summary, cell.beneath) for cell in table.lines[1].cells]
    assert cells == [
        ("80.0 %", ("60.0 %",)),
        ("90.0 %", ("70.0 %",)),
        ("never in 1 of 1", ()),
        ("1,200", ()),
        ("–", ()),
        ("75.0 %", ()),
    ]
    page = build_bench(results, {}).html
    assert page.count("<img") == 1
    assert page.count("<tr>") == 1 + len(results.tasks)


@pytest.mark.slow
def test_iterations_of_the_command_replace_those_of_the_tasks(tmp_path: Path) -> None:
    """On the command line, which ends with the table."""
    tasks = tasks_in(tmp_path, PLAIN)
    how = ("--methods", "random", "--seeds", 0, "--iterations", 10, "--jobs", 1, "--out", tmp_path / "out")
    ended = driver().run("bench", tasks, *how)
    assert ended.code == 0, ended.err
    assert "task 1 of 1: plain" in ended.err
    assert ended.out.splitlines()[-1] == f"report: {tmp_path / 'out' / 'bench.html'}"
    assert read(tmp_path / "out" / "plain" / "config.json")["iterations"] == 10
    refused = driver().run("bench", tasks, *how)
    assert refused.code == 2
    assert "holds another run: add --resume" in refused.err


def test_the_built_in_tasks_are_options_of_a_run() -> None:
    tasks = read_tasks(None)
    assert len(tasks) > 1, BUILT_IN
    assert all(options["data"].partition(":")[0] in ("digits", "needles", "pointers") for options in tasks.values())


@pytest.mark.slow
def test_a_new_policy_is_on_every_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy_gain(training: Training) -> Objective:
        return learned_gain(training._replace(config=replace(training.config, gains=nogs.GainOptions(exploration=0.0))))

    row = Method("Greedy gain", sequences="none", policy="greedy-gain", looks="policy")
    monkeypatch.setitem(METHODS, "greedy-gain", row)
    monkeypatch.setitem(OBJECTIVES, "greedy-gain", greedy_gain)
    how = {"methods": ("greedy-gain",), "seeds": (0,), "iterations": 10, "jobs": 1}
    bench(nogs.Bench(nogs.Machine(tmp_path / "out"), tasks_in(tmp_path, PLAIN), **how))
    assert list(read(tmp_path / "out" / "bench.json")["tasks"]["plain"]["methods"]) == ["greedy-gain"]


def test_the_tasks_of_the_page_are_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "bench.md").read_text(encoding="utf-8")
    tasks = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    assert tasks
    (tmp_path / "tasks.toml").write_text("".join(tasks))
    options = read_tasks(tmp_path / "tasks.toml")
    assert options["smiling"]["data"] == f"celeba:{tmp_path}/celeba"
    with pytest.raises(UserError, match=r"^task faces: .*celeba does not exist"):
        bench(nogs.Bench(nogs.Machine(tmp_path / "out"), tmp_path / "tasks.toml"))
