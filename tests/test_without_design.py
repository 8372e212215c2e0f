"""A run of methods that learn from no designed sequences: no posterior, no bank, no search."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nogs
from nogs.errors import UserError
from nogs.pipeline import run
from tiny import GLIMPSE_PX, STRIDE_PX, T, pictures, write_npz


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("without-design")
    config = nogs.Run(
        machine=nogs.Machine(folder / "out"),
        source=nogs.Source(f"npz:{write_npz(folder / 'images.npz')}"),
        geometry=nogs.Geometry(GLIMPSE_PX, STRIDE_PX, T, overview=4),
        methods=("ram", "gain", "dime"),
        seeds=(0,),
        iterations=20,
        reference_iterations=40,
        batch_size=16,
        validate_every=10,
        schedule="cosine",
        jobs=1,
        network=nogs.AttentionNetwork(8, core="attention"),
        gains=nogs.GainOptions(foresight=0.5, detail=0.5),
    )
    run(config)
    return folder / "out"


def read(run: Path, *parts: str) -> Any:
    return json.loads(run.joinpath(*parts).read_text())


@pytest.mark.slow
def test_nothing_is_designed_and_all_else_is_there(finished: Path) -> None:
    assert not [name for name in ("posterior", "bank", "sequences") if (finished / name).exists()]
    results = read(finished, "results.json")
    assert results["methods"].keys() == {"ram", "gain", "dime"}
    assert not {"posterior", "sequences"} & results.keys()
    assert results["methods"]["gain"]["macs_by_glimpse"] == results["methods"]["ram"]["macs_by_glimpse"]
    page = (finished / "report.html").read_text()
    assert "Learned gain" in page
    assert "The posterior, and what its designs are worth" not in page
    assert 'id="where-they-look"' in page


@pytest.mark.slow
def test_the_reference_is_trained_for_as_long_as_it_is_given(finished: Path) -> None:
    methods = read(finished, "results.json")["methods"]
    trained = {name: scores["iterations_trained"] for name, scores in methods.items()}
    assert trained == {"ram": [40], "gain": [20], "dime": [20]}


@pytest.mark.slow
def test_every_training_has_the_options_of_the_run(finished: Path) -> None:
    for name in ("ram", "gain", "dime"):
        config = read(finished, "train", f"{name}-seed0", "config.json")
        assert config["optimisation"]["schedule"] == "cosine"
        assert config["geometry"]["overview"] == 4
        assert (config["network"]["hidden"], config["network"]["core"]) == (8, "attention")
        assert (config["gains"]["foresight"], config["gains"]["detail"]) == (0.5, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gain", "dime"])
def test_a_network_of_learned_gains_stops_by_itself_and_another_does_not(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    Image.fromarray(pictures(np.array([0]), seed=1)[0]).save(tmp_path / "image.png")
    config = nogs.Predict(finished / "train" / f"{name}-seed0", (tmp_path / "image.png",), json=True)
    for threshold, steps in ((0.0, T), (100.0, 1)):
        nogs.predict(replace(config, threshold=threshold))
        answer = json.loads(capsys.readouterr().out)
        assert answer["steps"] == steps
    whole = read(finished, "results.json")["methods"][name]
    assert answer["macs"] == whole["macs_by_glimpse"][0] + whole["macs_by_part"]["locator"]  # its gain was predicted
    with pytest.raises(UserError, match="a network of ram predicts no gain itself"):
        nogs.predict(replace(config, model=finished / "train" / "ram-seed0", threshold=0.1))


@pytest.mark.slow
def test_networks_of_different_images_are_not_evaluated_together(finished: Path, tmp_path: Path) -> None:
    models = (finished / "train" / "ram-seed0", tmp_path / "other")
    geometry = nogs.Geometry(GLIMPSE_PX, STRIDE_PX, T)
    source = nogs.Source(f"npz:{write_npz(tmp_path / 'images.npz', count=130)}")
    optimisation = nogs.Optimisation(iterations=2, batch_size=8, validate_every=2)
    nogs.train(nogs.Train(nogs.Machine(models[1]), source, geometry, optimisation))
    with pytest.raises(UserError, match=r"other was trained with another `data` .* than .*ram-seed0"):
        nogs.evaluate(nogs.Evaluate(nogs.Machine(tmp_path / "evaluation"), models))
