"""The configuration of `nogs tune`: an architecture search under a cost objective."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nogs.config.bounds import Batch, Checked, Count, Processes, Seed, Weight
from nogs.config.groups import Machine, Naturals, Rates, Schedule, Sizes, Source


@dataclass(frozen=True)
class Tune(Checked):
    """Search for a hard attention network that is accurate for its multiply-adds."""

    machine: Machine
    source: Source = field(default_factory=Source)
    method: str = "ram"
    """method of all trainings, one that learns without sequences: ram, ws-ram, gain, dime, gdfs, random or centre"""
    trials: Count = 60
    """trainings of the search"""
    iterations: Count = 1500
    """most iterations of a trial; those that fall behind are stopped earlier"""
    final_iterations: Count = 6000
    """most iterations of the training of the best network after the search"""
    cost_weight: Weight = 0.01
    """λ of the objective: validation accuracy - λ log(multiply-adds of an image after all glimpses)"""
    front: bool = False
    """search for the front of accuracy and multiply-adds in place of one objective; no trial is stopped earlier"""
    glimpse_sizes: Sizes = (8, 12, 16, 24, 32)
    """side lengths of a glimpse in pixels to choose from"""
    strides: Sizes = (4, 8)
    """steps between neighbouring locations, in pixels, to choose from"""
    glimpses: Sizes = (1, 2, 3, 4, 6)
    """numbers of glimpses (T) to choose from"""
    scales: Sizes = (1, 2, 3)
    """numbers of concentric squares of a glimpse to choose from"""
    overviews: Naturals = (0,)
    """side lengths of the overview in pixels to choose from; 0: none"""
    hidden: Sizes = (32, 64, 128)
    """numbers of hidden units of the recurrent core to choose from"""
    learning_rates: Rates = (5e-4, 5e-3)
    """lowest and highest step size of Adam"""
    batch_size: Batch = 64
    """images in each iteration"""
    validate_every: Count = 100
    """iterations between validations"""
    schedule: Schedule = "cosine"
    """course of the step size in the training of the best network; in the search it is constant"""
    seed: Seed = 0
    """seed of the search and of all trainings"""
    jobs: Processes = 1
    """trials at the same time; 0: one for each core, or one on an accelerator. More than 1: a trial is drawn before
    those beside it are known, so the search finds other networks"""
    cnns: Path | None = None
    """run directory of baselines on the same images, whose CNNs are drawn beside the trials"""
