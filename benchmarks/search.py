"""Compare the cost and the regret of four searches: AVP-CNN or lookahead posterior, exhaustive or by race.

    uv run python benchmarks/search.py [--data SPEC --task NAME --image-size PX ...] --folder DIR

Fits both posteriors and builds a bank in DIR, unless an earlier call did. Four searches then choose the next glimpse of
the same images from the same completions:

- the AVP-CNN on every location of every completion, which is the published algorithm,
- the AVP-CNN in a race,
- the lookahead posterior on every location of every completion,
- the lookahead posterior in a race, as in `nogs search`.

First the loss of both posteriors is measured on validation images, at designed and at random locations. For each
search this prints seconds and evaluations of the posterior for each glimpse of an image, multiply-adds per second as a
share of the machine's ceiling in the same precision (a matrix product of 1024 x 1024 x 1024, measured in the same run),
and the regret in nats under the exhaustive maps of the AVP-CNN. If exhaustive search takes longer than --patience
seconds an image, its time is extrapolated from a sample and regrets are left out. Maps are not pooled, which is the
hardest case for a race.

Measured on two cores (AMD EPYC with AVX512-BF16): docs/benchmarks.md.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor

from nogs.completion.bank import load_bank
from nogs.completion.protocol import Completions
from nogs.completion.retrieval import Retrieval
from nogs.config.groups import Geometry, Machine, Optimisation, PosteriorNetwork, RaceOptions, RetrievalOptions, Source
from nogs.config.stages import BuildBank, FitPosterior
from nogs.data import ImageSet, load
from nogs.design.gain_maps import Maps, exhaustive
from nogs.design.greedy import choose, regret
from nogs.design.race import Race
from nogs.evaluation.cost import count_macs
from nogs.evaluation.examples import posterior_log_probs
from nogs.glimpses.fovea import Glimpses, look
from nogs.posterior.lookahead import LookaheadPosterior
from nogs.posterior.masked_cnn import AVPCNN
from nogs.posterior.protocol import Candidates
from nogs.runs.device import chance, choose_device, design_dtype
from nogs.specs import PosteriorSpec
from nogs.stages.build_bank import build_bank
from nogs.stages.fit_posterior import fit_posterior
from nogs.weights import load_network

VALIDATED = 500
"""Validation images that the loss of both posteriors is measured on."""
SAMPLE = 512
"""Evaluations that the time of an exhaustive search is extrapolated from."""
Either = AVPCNN | LookaheadPosterior


@dataclass(frozen=True)
class Benchmark:
    """Seconds and regret of four searches."""

    folder: Path
    """directory of the fitted posteriors and the bank"""
    source: Annotated[Source, tyro.conf.arg(name="")] = field(default_factory=Source)
    geometry: Annotated[Geometry, tyro.conf.arg(name="")] = field(default_factory=Geometry)
    race: Annotated[RaceOptions, tyro.conf.arg(name="")] = field(default_factory=RaceOptions)
    completions: int = 200
    """completions an image (the paper's 200)"""
    images: int = 12
    """annotated images to search for"""
    backbone: str = "small-resnet"
    """CNN of the AVP-CNN; the paper's is densenet121"""
    avp_iterations: int = 1500
    posterior_iterations: int = 4000
    batch_size: int = 64
    patience: float = 120.0
    """seconds for each image above which the time of an exhaustive search is extrapolated"""
    out: Path | None = None
    """JSON file to write the figures to"""


def main(config: Benchmark) -> None:
    """Fit posteriors and bank if they are missing, then search and print."""
    device = choose_device("auto")
    data = load(config.source)
    avp, ours = _fitted(config, "avp-cnn", device), _fitted(config, "lookahead", device)
    place = Machine(config.folder / "bank", resume=True)
    bank = load_bank(build_bank(BuildBank(place, config.source)), data)
    retrieval = Retrieval(bank, ours.grid, RetrievalOptions(completions=config.completions))
    rows = data.annotated(max(600, config.images), config.source.split_seed)[: config.images]
    ceiling = _ceiling(design_dtype(device), device)
    print(
        f"{len(ours.grid)} locations, {config.completions} completions drawn, {config.images} images, {device}, "
        f"{torch.get_num_threads()} threads; a matrix product reaches {ceiling / 1e9:.0f} G multiply-adds a second"
    )
    figures: list[dict[str, Any]] = []
    with torch.inference_mode():
        figures += _accuracies(config, avp, ours, data, retrieval)
        cells = _first(ours, retrieval, config.images)
        for t in range(1, config.geometry.glimpses):
            seen = look(data.images, ours.grid, cells, rows)
            completed = retrieval(seen, groups=data.groups[rows], generator=chance(0, 6, 0, t))
            figures += _compare(config, avp, ours, seen, completed, t=t, ceiling=ceiling)
            gain = exhaustive(ours, seen, completed, generator=chance(0)).eig
            cells = torch.cat((cells, choose(gain, cells)[:, None]), dim=1)
    if config.out:
        config.out.write_text(json.dumps(figures, indent=1))


def _fitted(config: Benchmark, kind: str, device: torch.device) -> Either:
    network = PosteriorNetwork(posterior=kind, backbone=config.backbone)  # type: ignore[arg-type] # two literals
    iterations = config.avp_iterations if kind == "avp-cnn" else config.posterior_iterations
    how = Optimisation(iterations, config.batch_size, learning_rate=2e-3, validate_every=250)
    place = Machine(config.folder / kind, resume=True)
    run = fit_posterior(FitPosterior(place, config.source, config.geometry, network, how))
    return load_network(run, "model", kind=PosteriorSpec, device=device)[1]


def _accuracies(
    config: Benchmark, avp: Either, ours: Either, data: ImageSet, retrieval: Retrieval
) -> list[dict[str, Any]]:
    """Print and return the mean -log g(θ) of both posteriors on validation images, at designed and random locations."""
    rows, T = data.members("val")[:VALIDATED], config.geometry.glimpses
    designed = _first(ours, retrieval, len(rows))
    for t in range(1, T):
        seen = look(data.images, ours.grid, designed, rows)
        completed = retrieval(seen, groups=data.groups[rows], generator=chance(0, 9, t))
        maps = Race(config.race, "eig")(ours, seen, completed, generator=chance(0, 9, 0, t))
        designed = torch.cat((designed, choose(maps.eig, designed)[:, None]), dim=1)
    random = torch.randint(len(ours.grid), designed.shape, generator=chance(0, 9))
    figures = []
    print(f"\nnats of the label, t = 1..{T}, {len(rows)} validation images")
    for name, posterior in (("AVP-CNN", avp), ("lookahead", ours)):
        for places, cells in (("designed", designed), ("random", random)):
            log_probs = posterior_log_probs(posterior, data, rows, cells)
            labels = data.labels[rows, None, None].expand(-1, T, 1)
            nll = [round(value, 3) for value in (-log_probs.gather(-1, labels)[..., 0]).mean(0).tolist()]
            figures.append({"posterior": name, "places": places, "nll_nats_by_glimpse": nll})
            print(f"  {name:10} {places:9} {', '.join(f'{value:.3f}' for value in nll)}", flush=True)
    return figures


def _first(posterior: Either, retrieval: Retrieval, images: int) -> Tensor:
    """Return the first cell, which all images share, as [images, 1]."""
    draws = retrieval.unconditional(256, generator=chance(0, 5))
    nothing = look(draws.images[:1], posterior.grid, torch.empty(1, 0, dtype=torch.long))
    gain = exhaustive(posterior, nothing, draws, generator=chance(0)).eig
    return choose(gain, torch.empty(1, 0, dtype=torch.long)).expand(images)[:, None]


def _compare(
    config: Benchmark, avp: Either, ours: Either, seen: Glimpses, completed: Completions, *, t: int, ceiling: float
) -> list[dict[str, float | int | str | None]]:
    """Print one line for each search and return its figures. Speed and regret are relative to the first search."""
    B, L = len(seen.cells), len(avp.grid)
    whole = len(completed.owners) * L
    device = avp.device
    on_device = seen.to(device), completed.to(device)
    each = _seconds_each(avp, *on_device)
    exact: Maps | None = None
    if each * whole / B <= config.patience:
        exact, seconds = _timed(lambda: exhaustive(avp, seen, completed, generator=chance(0)))
    else:
        seconds = each * whole
    lines = [("AVP-CNN, exhaustive" + (" (extrapolated)" if exact is None else ""), avp, seconds, whole, exact)]

    def raced(posterior: Either) -> Maps:
        return Race(config.race, "eig")(posterior, seen, completed, generator=chance(0, 8, t))

    for name, posterior, how in (
        ("AVP-CNN, race", avp, lambda: raced(avp)),
        ("lookahead, exhaustive", ours, lambda: exhaustive(ours, seen, completed, generator=chance(0))),
        ("lookahead, race", ours, lambda: raced(ours)),
    ):
        maps, took = _timed(how)
        lines.append((name, posterior, took, maps.evaluations, maps))
    print(f"\nglimpse {t + 1}; {len(completed.owners) / B:.0f} distinct completions an image")
    figures = []
    for name, posterior, took, evaluations, maps in lines:
        macs = _macs(posterior, *on_device)
        row: dict[str, float | int | str | None] = {
            "glimpse": t + 1,
            "search": name,
            "seconds_each": took / B,
            "evaluations_each": evaluations / B,
            "macs_per_evaluation": macs,
            "of_ceiling": evaluations * macs / took / ceiling,
            "times_faster": seconds / took,
        }
        regrets = ""
        if exact is not None and maps is not None:
            lost = regret(
                exact.eig, choose(maps.eig, seen.cells), visited=seen.cells, population=exact.eig.mean(0), pooling=0.0
            )
            row |= {"regret_mean_nats": lost.mean().item(), "regret_p95_nats": lost.quantile(0.95).item()}
            regrets = f"   regret {lost.mean():.4f} mean, {lost.quantile(0.95):.4f} p95 nats"
        print(
            f"  {name:38} {took / B:9.3f} s   {evaluations / B:10,.0f} evaluations of {macs:12,.0f} macs   "
            f"{100 * row['of_ceiling']:3.0f} % of ceiling   {seconds / took:8,.1f} x{regrets}",
            flush=True,
        )
        figures.append(row)
    return figures


def _timed(work) -> tuple[Maps, float]:  # type: ignore[no-untyped-def] # () -> Maps
    started = time.perf_counter()
    maps = work()  # maps are copied to the CPU, which waits for the accelerator
    return maps, time.perf_counter() - started


def _seconds_each(posterior: Either, seen: Glimpses, completed: Completions) -> float:
    """Return the seconds of one evaluation, averaged over a sample."""
    every = torch.arange(SAMPLE, device=completed.owners.device)
    rows, cells = every % len(completed.owners), every * 7 % len(posterior.grid)
    candidates = Candidates(completed.images, completed.owners, rows, cells)
    best = []
    for _ in range(2):
        started = time.perf_counter()
        posterior.lookahead(seen, candidates).logits.cpu()
        best.append(time.perf_counter() - started)
    return min(best) / SAMPLE


def _macs(posterior: Either, seen: Glimpses, completed: Completions) -> int:
    """Return the multiply-adds of one further evaluation: those of 512 minus those of 256, over 256."""
    counts = []
    for n in (256, 512):
        cells = torch.arange(n, device=completed.owners.device) % len(posterior.grid)
        candidates = Candidates(completed.images, completed.owners, torch.zeros_like(cells), cells)

        def ahead(candidates: Candidates = candidates) -> None:
            posterior.lookahead(seen, candidates)

        counts.append(count_macs(posterior, ahead))
    return (counts[1] - counts[0]) // 256


def _ceiling(dtype: torch.dtype, device: torch.device) -> float:
    """Return the multiply-adds per second of one large matrix product."""
    a = torch.rand(1024, 1024, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - started)
    return 1024**3 / best


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
