"""Stage baselines: networks to compare with, each a run directory of its own.

Whole-image CNNs form a grid of input resolution x width x learning rate (*Near-Optimal Glimpse Sequences*, section 5),
beside an upper bound on full-size images. Networks that read patches of large images have one size each. All are
trained by the same loop on the same images without augmentation. Reported are the learning rate of the best validation
accuracy (mean over seeds), and whether no other network is both as cheap and as accurate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby, product
from statistics import mean

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from nogs.attention.classify import BATCH
from nogs.config.bounds import check_distinct
from nogs.config.groups import Optimisation
from nogs.config.stages import Baselines, FitBaseline
from nogs.data import ImageSet, fingerprint, load
from nogs.errors import UserError
from nogs.evaluation.cost import macs_of_image
from nogs.evaluation.records import means_over_seeds
from nogs.evaluation.schema import CNNScores, WholeImage, read_results
from nogs.evaluation.scores import accuracy, class_frequencies, scores
from nogs.evaluation.typed_json import to_json
from nogs.glimpses.grid import Grid
from nogs.rivals.cnn import ARCHITECTURES, UPPER_BOUND, check_resolution, shrink
from nogs.runs.device import choose_device
from nogs.runs.directory import RunDirectory, finished_run, open_run
from nogs.runs.progress import Tick, after, ticking
from nogs.specs import AttentionSamplingSpec, CNNSpec, MultipleInstancesSpec, PatchSelectionSpec
from nogs.training.loop import fit
from nogs.weights import save_network

UPPER_BOUND_LEARNING_RATE = 1e-3
READ_PATCHES = (AttentionSamplingSpec.kind, PatchSelectionSpec.kind, MultipleInstancesSpec.kind)
"""Architectures that are given the images at full size and read patches of them."""
PIXELS_AT_ONCE = 2**23
"""Pixels that networks read at a time while they are evaluated."""


def fit_baselines(config: Baselines, tick: Tick | None = None) -> RunDirectory:
    """Train all networks of ``config``; write results.json. Costs are in multiply-adds (FLOPs = 2 x multiply-adds)."""
    if finished := finished_run(config.machine.out, "baselines", config, resume=config.machine.resume):
        return finished
    device = choose_device(config.machine.device)
    data = load(config.source)
    trainings = _trainings(config, image_px=data.images.shape[-1])
    _check(config, trainings, data)
    run = open_run(config.machine.out, "baselines", config, resume=config.machine.resume)
    inputs, rows = {config.source.data: fingerprint(data)}, list[WholeImage]()
    with ticking("baselines", len(trainings) * config.iterations, tick) as report:
        # By resolution, so that one reduced copy of the images is in memory at a time.
        for resolution, of_resolution in groupby(trainings, key=lambda training: training.resolution):
            small = replace(data, images=shrink(data.images, resolution, device=device))
            for training in of_resolution:
                name = training.machine.out.name
                trained = _fit(training, small, device, inputs, after(len(rows) * config.iterations, name, report))
                rows.append(read_results(trained, WholeImage))
                report(len(rows) * config.iterations, name)
    best = _best_rates([row for row in rows if row.architecture != UPPER_BOUND])
    upper_bound = next((row for row in rows if row.architecture == UPPER_BOUND), None)
    run.save_json("results.json", to_json(CNNScores(best, means_over_seeds(best), upper_bound)))
    run.finish(device=str(device), inputs=inputs)
    return run


def _check(config: Baselines, trainings: Sequence[FitBaseline], data: ImageSet) -> None:
    """Check the grid before anything is written or computed. Raises UserError."""
    data.check_one_label()
    check_distinct(config, "architectures", "resolutions", "widths", "learning_rates", "seeds")
    for training in trainings:
        _spec(training, data)


def _trainings(config: Baselines, *, image_px: int) -> list[FitBaseline]:
    """Return the trainings in the order of resolutions, those on full-size images last, the upper bound once."""
    c = config
    reading = [name for name in c.architectures if name in READ_PATCHES]
    whole = [name for name in c.architectures if name not in READ_PATCHES]
    kinds = list(product(c.resolutions, whole, c.widths, c.learning_rates, c.seeds))
    kinds += product((image_px,), reading, (1.0,), c.learning_rates, c.seeds)
    if c.upper_bound:
        kinds.append((image_px, UPPER_BOUND, 1.0, UPPER_BOUND_LEARNING_RATE, c.seeds[0]))
    trainings = []
    for resolution, architecture, width, rate, seed in kinds:
        of_width = "" if architecture in READ_PATCHES else f"-x{width:g}"
        name = f"{architecture}-{resolution}px{of_width}-lr{rate:g}-seed{seed}"
        machine = replace(c.machine, out=c.machine.out / name, resume=True)
        how = Optimisation(c.iterations, c.batch_size, rate, c.validate_every, c.patience, seed, c.schedule)
        trainings.append(FitBaseline(machine, c.source, how, architecture, resolution, width, c.patches))
    return trainings


def _spec(
    config: FitBaseline, data: ImageSet
) -> CNNSpec | AttentionSamplingSpec | PatchSelectionSpec | MultipleInstancesSpec:
    """Return the spec of the network of a training. Raises UserError for one that does not exist or does not fit."""
    (channels, image_px), options = data.images.shape[1:3], config.patches
    if config.architecture not in READ_PATCHES:
        if config.architecture not in (*ARCHITECTURES, UPPER_BOUND):
            names = ", ".join((*ARCHITECTURES, *READ_PATCHES))
            raise UserError(f"architectures={config.architecture}: choose among {names}")
        check_resolution(image_px, config.resolution)
        return CNNSpec(config.architecture, config.resolution, config.width, channels, data.classes)
    if options.patch_size > image_px:
        raise UserError(f"patch_size={options.patch_size} exceeds image_px={image_px}: choose at most {image_px}")
    grid = Grid(image_px, options.patch_size, options.patch_size)
    if config.architecture == PatchSelectionSpec.kind:
        return PatchSelectionSpec(grid, channels, data.classes, options.memory)
    if config.architecture == MultipleInstancesSpec.kind:
        return MultipleInstancesSpec(grid, channels, data.classes)
    return AttentionSamplingSpec(
        grid,
        channels,
        data.classes,
        options.overview,
        options.patches,
        options.replacement,
        options.entropy_weight,
    )


def _fit(config: FitBaseline, data: ImageSet, device: torch.device, inputs: dict[str, str], tick: Tick) -> RunDirectory:
    """Train one network on images that have its resolution, and score it on the test split."""
    if finished := finished_run(config.machine.out, "fit-baseline", config, resume=True):
        return finished
    run = open_run(config.machine.out, "fit-baseline", config, resume=True)
    o, channels = config.optimisation, data.images.shape[1]
    torch.manual_seed(o.seed)
    spec = _spec(config, data)
    network = spec.build().to(device)
    pixels, labels = data.images.to(device), data.labels.to(device)
    train, val, test = (data.members(split).to(device) for split in ("train", "val", "test"))
    at_once = max(1, min(BATCH, PIXELS_AT_ONCE // network.pixels_at_once))

    def log_probs(images: Int[Tensor, " n"]) -> Float[Tensor, "n C"]:
        return torch.cat([network(pixels, rows).log_softmax(-1) for rows in images.split(at_once)])

    def validate() -> dict[str, float]:
        answers = log_probs(val)
        return {"nll_nats": F.nll_loss(answers, labels[val]).item(), "accuracy": accuracy(answers, labels[val])}

    fit(
        network,
        run,
        loss=lambda batch, generator: network.loss(pixels, train[batch], labels[train[batch]], generator),
        validate=validate,
        examples=len(train),
        optimisation=o,
        device=device,
        tick=tick,
    )
    with torch.inference_mode():
        figures, answers = validate(), log_probs(test).cpu()
        shares = torch.cat([network.pixels_read(pixels, rows) for rows in test.split(at_once)])
    save_network(run, "model", network, spec)
    run.save_tensors("test", {"log_probs": answers, "images": test, "labels": labels[test]})
    frequencies = class_frequencies(data.labels[train.cpu()], len(data.classes))
    tested = scores(answers, data.labels[test.cpu()], frequencies=frequencies)
    row = WholeImage(
        name=config.machine.out.name.removesuffix(f"-seed{o.seed}"),
        architecture=config.architecture,
        resolution_px=config.resolution,
        macs=macs_of_image(network, channels=channels, image_px=config.resolution, device=device),
        validation_accuracy=figures["accuracy"],
        test_accuracy=tested.accuracy,
        test_balanced_accuracy=tested.balanced_accuracy,
        test_equal_prior_balanced_accuracy=tested.equal_prior_balanced_accuracy,
        test_auroc=tested.auroc,
        width=config.width,
        learning_rate=o.learning_rate,
        seed=o.seed,
        pixels_read_share=shares.mean().item(),
        overview_px=spec.overview_px if isinstance(spec, AttentionSamplingSpec) else 0,
    )
    run.save_json("results.json", to_json(row))
    run.finish(device=str(device), inputs=inputs)
    return run


def _best_rates(rows: Iterable[WholeImage]) -> tuple[WholeImage, ...]:
    """Return the seeds of each network's best learning rate, cheapest first, and whether it is on the frontier.

    On it, no other network is as accurate on validation images (mean over seeds) for no more multiply-adds.
    """
    by_network: dict[tuple[str, int, float], dict[float | None, list[WholeImage]]] = {}
    for row in rows:
        network = row.architecture, row.resolution_px, row.width
        by_network.setdefault(network, {}).setdefault(row.learning_rate, []).append(row)
    best = [max(by_rate.values(), key=_mean_accuracy) for by_rate in by_network.values()]
    best.sort(key=lambda seeds: (seeds[0].macs, -_mean_accuracy(seeds)))
    chosen: list[WholeImage] = []
    highest = -1.0
    for seeds in best:
        accuracy = _mean_accuracy(seeds)
        chosen += [replace(row, on_frontier=accuracy > highest) for row in seeds]
        highest = max(highest, accuracy)
    return tuple(chosen)


def _mean_accuracy(seeds: Sequence[WholeImage]) -> float:
    return mean(row.validation_accuracy for row in seeds)
