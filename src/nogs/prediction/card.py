"""The model card of a saved model: README.md with a YAML header, written from the run that trained it.

The header is the hub's (https://huggingface.co/docs/hub/model-cards). Figures are of results.json of an evaluation of
the run; without one, the card has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nogs.attention.methods import method
from nogs.config.groups import Source
from nogs.errors import UserError
from nogs.evaluation.schema import MethodScores, Results, read_results
from nogs.prediction.model import Model
from nogs.runs.directory import RunDirectory, read_run
from nogs.stopping.curves import Curve

CLASSES = 50
"""Classes that a card lists."""


class Scores(NamedTuple):
    """Results of an evaluation, and the place of the model's seed in its lists."""

    results: Results
    of_method: MethodScores
    seed: int


def model_card(model: Model, name: str, *, evaluation: Path | None = None) -> str:
    """Return README.md for ``model``, which is shared as ``name`` (a folder, or owner/name on the hub).

    ``evaluation``: run directory of evaluate that scored the model; by default the one beside its run, if there is one.
    """
    scores = _scores(model, evaluation)
    parts = [_header(model, name, scores), *_introduction(model), *_usage(model, name)]
    parts += _training(model.run) if model.run else []
    parts += _figures(scores) if scores else ["## Accuracy\n\nThe run was not evaluated."]
    return "\n\n".join([*parts, *_limits(model)]) + "\n"


def _scores(model: Model, evaluation: Path | None) -> Scores | None:
    """Return the results of the model's method and seed.

    Raises UserError if ``evaluation`` is given and has none; one that is found beside the run and has none is left out.
    """
    if model.run is None:
        if evaluation is not None:
            raise UserError(f"evaluation={evaluation}: this model was not loaded from a run directory of train")
        return None
    place = model.run.path.absolute().parent.parent / "evaluation" if evaluation is None else evaluation
    try:
        run, seed = read_run(place, "evaluate"), model.run.config["optimisation"]["seed"]
        trained = [Path(path).resolve() for path in run.config["models"]]
        results = read_results(run, Results)
        of_method = results.methods.get(model.spec.method)
        if model.run.path.resolve() not in trained or of_method is None or seed not in of_method.seeds:
            raise UserError(f"evaluation={place} does not score {model.run.path}")
    except UserError:
        if evaluation is not None:
            raise
        return None
    return Scores(results, of_method, of_method.seeds.index(seed))


def _header(model: Model, name: str, scores: Scores | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData  # takes half a second to import

    measured = None
    if scores is not None:
        figures = {
            "accuracy": scores.of_method.test_accuracy,
            "balanced_accuracy": scores.of_method.test_balanced_accuracy,
        }
        measured = [
            EvalResult(
                task_type="image-classification",
                dataset_type=_kind(scores.results.data),
                dataset_name=Source(data=scores.results.data).public,
                dataset_split="test",
                metric_type=metric,
                metric_value=round(float(by_seed[scores.seed]), 4),
            )
            for metric, by_seed in figures.items()
        ]
    tags = ["hard-attention", "glimpses", "nogs", model.spec.method]
    data = ModelCardData(
        library_name="nogs",
        pipeline_tag="image-classification",
        tags=tags,
        model_name=name.rpartition("/")[2] if measured else None,
        eval_results=measured,
    )
    return f"---\n{data.to_yaml()}\n---"


def _introduction(model: Model) -> Iterator[str]:
    spec = model.spec
    shown = ", ".join(spec.classes[:CLASSES]) + (
        f" and {len(spec.classes) - CLASSES} more" if len(spec.classes) > CLASSES else ""
    )
    yield f"# Hard attention network: {_in_words(spec.classes)}"
    zoom = f" of {spec.grid.zoom} zoom levels" if spec.grid.zoom > 1 else ""
    overview = f" after an overview of {spec.overview_px} × {spec.overview_px} pixels" if spec.overview_px else ""
    yield (
        f"This network classifies an image from at most {spec.glimpses} glimpses of {spec.grid.glimpse_px} × "
        f"{spec.grid.glimpse_px} pixels{zoom}{overview}. It chooses each glimpse from those before "
        f"(method: {method(spec.method).title}). Images become {spec.grid.image_px} × {spec.grid.image_px} pixels, "
        f"{'grey' if spec.channels == 1 else 'RGB'}, by `{spec.fit}`."
    )
    yield f"Classes: {shown}."


def _in_words(classes: tuple[str, ...]) -> str:
    return " or ".join(classes) if len(classes) < 4 else f"{len(classes)} classes"


def _usage(model: Model, name: str) -> Iterator[str]:
    early = ""
    if model.heads is not None or model.predicts_gains:
        early = (
            '\nmodel.predict("photograph.jpg", threshold=0.05)  # stop when a glimpse is expected to gain less, in nats'
        )
    yield (
        f'## Use\n\n```python\nimport nogs\n\nmodel = nogs.load_model("{name}")\n'
        f'answer = model.predict("photograph.jpg")\nprint(answer.label, answer.probs, answer.glimpses){early}\n```'
    )


def _training(run: RunDirectory) -> Iterator[str]:
    config, provenance = run.config, run.provenance
    source, o = config["source"], config["optimisation"]
    task = f", label {source['task']}" if source["task"] else ""
    rows = run.rows()
    yield (
        f"## Training\n\nData: `{Source(data=source['data']).public}`{task}. At most {o['iterations']} iterations of "
        f"{o['batch_size']} images ({rows[-1]['iteration'] if rows else 0} were run), learning rate "
        f"{o['learning_rate']:g}, seed {o['seed']}, on {provenance.get('device', 'an unknown device')}. Versions: "
        + ", ".join(f"{name} {version}" for name, version in provenance.get("versions", {}).items())
        + "."
    )


def _figures(scores: Scores) -> Iterator[str]:
    results, of, seed = scores.results, scores.of_method, scores.seed
    yield (
        f"## Accuracy\n\nOn {results.test.images} test images, which training did not see: accuracy "
        f"{_percent(of.test_accuracy[seed])}, balanced over classes {_percent(of.test_balanced_accuracy[seed])}, "
        f"cross-entropy {of.test_nll_nats[seed]:.3f} nats, AUROC {of.test_auroc[seed]:.3f}. The glimpses read "
        f"{_percent(of.pixels_read_share[seed])} of the pixels."
    )
    rows = [
        f"| {t} | {_percent(accuracy)} | {macs:,} |"
        for t, (accuracy, macs) in enumerate(
            zip(of.test_accuracy_by_glimpse[seed], of.macs_by_glimpse, strict=True), start=1
        )
    ]
    yield "\n".join(["| glimpses | accuracy | multiply-adds |", "|---|---|---|", *rows])
    if results.stopping_method is not None and of is results.methods.get(results.stopping_method):
        curve = results.stopping.get("eig", ())
        if curve:
            yield "Stopping by expected gain, mean over seeds (threshold in nats a glimpse):"
            yield _stopping(curve)


def _stopping(curve: Curve) -> str:
    chosen = curve[:: max(1, len(curve) // 8)]
    rows = [
        f"| {point.setting:.4f} | {point.mean_glimpses:.2f} | {_percent(point.accuracy)} | {point.macs:,.0f} |"
        for point in chosen
    ]
    return "\n".join(["| threshold | mean glimpses | accuracy | multiply-adds |", "|---|---|---|---|", *rows])


def _limits(model: Model) -> Iterator[str]:
    yield (
        "## Limits\n\nEvery image gets one of the classes above, whatever it shows. Objects much larger or smaller "
        "than in training, and photographs of another kind, lower the accuracy, and the probabilities are not "
        "calibrated for them. The network sees nothing outside its glimpses"
        + (" and its overview" if model.spec.overview_px else "")
        + ", and an image that is not square loses its edges" * (model.spec.fit == "crop")
        + ". The figures are of one data set; measure on your own images before you rely on it."
    )


def _kind(data: str) -> str:
    return data.partition(":")[0]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
