"""Pages of docs/ against the code: their Python runs, and the names, options and files that they mention exist."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nogs
from nogs.config.table import STAGES
from nogs.data.load import SOURCES
from nogs.specs import PosteriorSpec
from nogs.weights import load_network
from staged import Stages, run_of
from tiny import pictures
from typed import save

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"), key=lambda page: page.name)
TOLD = [page for page in [*PAGES, ROOT / "README.md"] if page.name != "log.md"]
"""Pages on the present state; the log is on the past."""


def run_blocks(page: str) -> dict[str, Any]:
    """Execute the Python blocks of a page in their order, and return their names."""
    names: dict[str, Any] = {"__name__": page}
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, page, "exec", dont_inherit=True), names)
    return names


def test_the_share_of_pixels_is_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    run_blocks("choosing-glimpses.md")
    assert capsys.readouterr().out == "441 locations\nat most 10% of the pixels\n"


@pytest.mark.parametrize(("glimpse_px", "evidence_px"), [(32, 28), (16, 13), (9, 9)])
def test_the_rule_of_the_stride_cuts_no_evidence(glimpse_px: int, evidence_px: int) -> None:
    """A step that is one pixel longer cuts some."""

    def cut(stride_px: int) -> bool:
        offsets = nogs.Grid(64, glimpse_px, stride_px).offsets_px
        return not all(
            any(first <= place and place + evidence_px <= first + glimpse_px for first in offsets)
            for place in range(64 - evidence_px + 1)
        )

    assert not cut(glimpse_px - evidence_px + 1)
    assert cut(glimpse_px - evidence_px + 2)


def test_the_completion_of_the_page_finds_the_image_itself(stages: Stages) -> None:
    names = run_blocks("adding-a-completion.md")
    data = nogs.load(stages.source)
    _, posterior = load_network(run_of(stages, "posterior"), "model", kind=PosteriorSpec, device=torch.device("cpu"))
    gains = names["gain_map"](posterior, data, torch.zeros(4, 1, dtype=torch.long))
    assert gains.shape == (4, len(posterior.grid))
    assert gains.min() > -1e-5
    nearest = names["Nearest"](data.images, posterior.grid, count=3)
    rows = torch.tensor([5, 7])
    seen = nogs.look(data.images, posterior.grid, torch.tensor([[0, 4], [1, 8]]), rows)
    completed = nearest(seen, groups=rows, generator=torch.Generator())
    assert torch.equal(completed.images[[0, 3]], data.images[rows])
    assert completed.owners.tolist() == [0, 0, 0, 1, 1, 1]
    assert nearest.unconditional(5, generator=torch.Generator()).weights.tolist() == pytest.approx([0.2] * 5)


def test_the_data_source_of_the_page_is_loaded(tmp_path: Path, cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "jsonl", SOURCES["csv"])  # type: ignore[arg-type] # so that the table is restored
    names = run_blocks("adding-a-data-source.md")
    labels = ["tulip", "rose"] * 6
    for number, image in enumerate(pictures(np.arange(len(labels)) % 2, seed=0)):
        save(image, tmp_path / f"{number}.png")
    rows = [json.dumps({"file": f"{number}.png", "label": label}) for number, label in enumerate(labels)]
    (tmp_path / "table.jsonl").write_text("\n".join(rows))
    images = names["loaded"](tmp_path / "table.jsonl")
    assert images.classes == ("rose", "tulip")
    assert images.labels.tolist() == [1, 0] * 6
    assert images.images.shape == (12, 1, 32, 32)
    (tmp_path / "table.jsonl").write_text("\n".join([*rows, '{"file": "3.png"}']))
    with pytest.raises(nogs.UserError, match=r"table.jsonl line 13: is not an object"):
        names["loaded"](tmp_path / "table.jsonl")


def options(kind: type) -> set[str]:
    """The names of a configuration's fields, and of those of its groups."""
    names = set()
    for part in dataclasses.fields(kind):
        names.add(part.name)
        group = part.default_factory if part.default_factory is not dataclasses.MISSING else None
        names |= options(group) if dataclasses.is_dataclass(group) else set()  # type: ignore[arg-type]
    return names | ({field.name for field in dataclasses.fields(nogs.Machine)} if "machine" in names else set())


@pytest.mark.parametrize("page", TOLD, ids=lambda page: page.name)
def test_options_names_and_files_that_a_page_mentions_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = set().union(*(options(stage.config) for stage in STAGES)) | {"help", "version", "host", "format"}
    shell = re.sub(r"(?:pip|uv|git|python|mkdocs|bash|hf)[^\n]*", "", text)
    mentioned = {flag.replace("-", "_").removeprefix("no_") for flag in re.findall(r"`--([a-z][a-z0-9-]+)", shell)}
    assert mentioned <= known, mentioned - known
    for name in re.findall(r"`nogs\.([A-Za-z_][\w.]*)`", text):
        first, *rest = name.split(".")
        found = getattr(nogs, first, None) or importlib.import_module(f"nogs.{first}")
        for part in rest:
            found = getattr(found, part, None) or importlib.import_module(f"{found.__name__}.{part}")
    for file in re.findall(r"`((?:src|tests|docs|experiments|benchmarks|examples)/[\w/.-]+\.\w+)`", text):
        assert (ROOT / file).exists(), file
