"""`nogs export` against the prediction of the same run directory, and its refusals."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nogs
from exported import traceable
from nogs.export import nogs_onnx
from nogs.export.graphs import export_graphs
from staged import TESTED, Stages
from tiny import CLASSES, T, pictures
from typed import save

pytestmark = pytest.mark.usefixtures("cached")


@pytest.fixture(scope="module")
def folder(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("onnx") / "model"
    with traceable():
        nogs.export_onnx(nogs.Export(stages.folder / "nogs-0", out, int8=True))
    return out


def test_the_folder_is_complete(folder: Path) -> None:
    names = {"step.onnx", "step.int8.onnx", "model.json", "nogs_onnx.py"}
    assert {file.name for file in folder.iterdir()} == names
    about = json.loads((folder / "model.json").read_text())
    assert about["classes"] == list(CLASSES)
    assert about["glimpses"] == len(about["macs"]) == T
    assert about["test"]["images"] == TESTED


def test_answers_are_those_of_prediction(folder: Path, stages: Stages, tmp_path: Path) -> None:
    model, host = nogs.load_model(stages.folder / "nogs-0"), nogs_onnx.Model(folder)
    for number, image in enumerate(pictures(np.arange(6) % 3, seed=9)):
        file = save(np.hstack([image, image]), tmp_path / f"{number}.png")
        expected, found = model.predict(file), host.predict(file)
        assert found["label"] == expected.label
        assert found["probs"] == pytest.approx(expected.probs, abs=1e-5)
        assert found["glimpses"] == [[row, column] for row, column, _ in expected.glimpses]
        assert found["sides"] == [side for *_, side in expected.glimpses]
        assert (found["steps"], found["macs"]) == (expected.steps, expected.macs)


def test_accuracies_are_those_of_the_test_split(folder: Path, stages: Stages) -> None:
    data = nogs.load(stages.source)
    test = data.members("test")
    about = json.loads((folder / "model.json").read_text())["test"]
    for precision in ("float32", "int8"):
        found = nogs_onnx.Model(folder, precision=precision).classify(data.images[test].numpy())
        right = torch.from_numpy(found.probs).argmax(1) == data.labels[test]
        assert about["accuracy"][precision] == pytest.approx(right.double().mean().item())
        assert about["mean_glimpses"][precision] == found.steps.mean()
    assert about["labels_agree"] > 0.8


def refusal(config: nogs.Export) -> str:
    with pytest.raises(nogs.UserError) as caught:
        nogs.export_onnx(config)
    return str(caught.value)


def test_mistakes_are_found_before_the_export(stages: Stages, tmp_path: Path) -> None:
    model = stages.folder / "ram-0"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    assert "full exists: choose another" in refusal(nogs.Export(model, tmp_path / "full"))
    assert "predicts no gain itself" in refusal(nogs.Export(model, tmp_path / "out", threshold=0.1))
    nogs.load_model(model).save(tmp_path / "saved")
    problem = refusal(nogs.Export(tmp_path / "saved", tmp_path / "out", int8=True))
    assert problem.startswith("int8=True measures accuracy on test images")


def test_a_missing_extra_is_named(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **how: Any) -> Any:
        if name.partition(".")[0] == "onnxscript":
            raise ImportError("none", name=name)
        return real(name, *args, **how)

    model = nogs.load_model(stages.folder / "ram-0")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(nogs.UserError, match=r"the export needs onnxscript: install nogs\[onnx\]"):
        export_graphs(model.network, channels=1, policy=True, rule=None)
