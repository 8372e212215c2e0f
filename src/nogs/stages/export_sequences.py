"""Stage sequences export: write the sequences of a run as CSV, text files or a data set, in pixels of its images."""

from __future__ import annotations

from nogs.config.groups import Geometry, Source
from nogs.config.stages import ExportSequences
from nogs.data import load
from nogs.errors import UserError
from nogs.runs.files import write_whole
from nogs.sequences.card import CSV, dataset_card
from nogs.sequences.files import write_csv, write_text
from nogs.sequences.table import load_sequences, made_for, read_sequences_run
from nogs.specs import check_one_level, grid_of


def export_sequences(config: ExportSequences) -> None:
    """Write ``config.out``: one CSV file, or a folder of a text file for each image, or of a CSV and a card."""
    run = read_sequences_run(config.sequences)
    if config.out.exists():
        raise UserError(f"out={config.out} exists: choose another")
    meta, sequences = made_for(run), load_sequences(run)
    source = Source(**meta["source"])
    data = load(source)
    geometry = Geometry(**meta["geometry"])
    check_one_level(geometry)
    grid = grid_of(geometry, data)
    names = [data.names[image] for image in sequences.images.tolist()]
    top_left_px = grid.top_left_px(sequences.cells)
    if config.format == "text":
        write_text(config.out, names, top_left_px)
    else:
        gains = None if sequences.eig is None else sequences.eig.gather(-1, sequences.cells[..., None])[..., 0]
        file = config.out / CSV if config.format == "hub" else config.out
        file.parent.mkdir(parents=True, exist_ok=True)
        write_csv(file, names, task=meta["task"], top_left_px=top_left_px, eig_nats=gains)
    if config.format == "hub":
        card = dataset_card(run.stage, source, geometry, images=len(names), image_px=grid.image_px)
        write_whole(config.out / "README.md", card.encode())
    print(f"exported {len(names)} sequences to {config.out}")
