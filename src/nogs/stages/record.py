"""Stage record: store the glimpses of a trained network on training images, as sequences that others learn from.

The sequences of PS-RAM (*Near-Optimal Glimpse Sequences*, section 5): a trained RAM runs greedily on the images that
the search would annotate. PS-RAM is the control that separates the effect of the search from that of any supervision.
"""

from __future__ import annotations

from nogs.attention.classify import look_at_all
from nogs.attention.methods import chooser, method
from nogs.config.groups import Source
from nogs.config.stages import Record
from nogs.data import load
from nogs.runs.device import chance, choose_device
from nogs.runs.directory import RunDirectory, finished_run, open_run, read_run
from nogs.runs.progress import Tick, ticking
from nogs.sequences.table import Sequences, save_sequences
from nogs.specs import HardAttentionSpec
from nogs.weights import load_network


def record(config: Record, tick: Tick | None = None) -> RunDirectory:
    """Write sequences.safetensors: the cells of each image, without maps."""
    trained = read_run(config.model, "train")
    if finished := finished_run(config.machine.out, "record", config, resume=config.machine.resume):
        return finished
    device = choose_device(config.machine.device)
    how = trained.config
    source = Source(**how["source"])
    data = load(source)
    run = open_run(config.machine.out, "record", config, resume=config.machine.resume)
    spec, network = load_network(trained, "model", kind=HardAttentionSpec, device=device)
    pixels, images = data.images.to(device), data.annotated(config.annotate, source.split_seed)
    choose = chooser(
        method(how["method"]),
        network.grid,
        generator=chance(how["optimisation"]["seed"], 11, device=device),
        path=spec.path,
    )
    with ticking("recording", len(images), tick) as report:
        seen = look_at_all(network, pixels, images.to(device), glimpses=spec.glimpses, choose=choose)
        report(len(images), "")
    save_sequences(
        run,
        "sequences",
        Sequences(images, seen.cells.cpu()),
        source=how["source"],
        geometry=how["geometry"],
        task=source.task,
        origin="record",
    )
    run.finish(device=str(device), inputs={str(config.model): trained.hash_of("model.safetensors")})
    return run
