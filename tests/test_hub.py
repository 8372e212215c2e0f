"""Models are shared as folders and on the hub: with a card of their run's figures, and without trust in their files."""

from __future__ import annotations

import json
import random
import resource
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

import nogs
from exported import SPECS, lively
from nogs.evaluation.schema import Results, read_results
from nogs.prediction.hub import push_to_hub
from nogs.prediction.model import Halting, Heads, Model
from nogs.runs.directory import RunDirectory
from nogs.runs.identity import as_json, from_json
from nogs.runs.marker import write_marker
from nogs.specs import HaltingSpec, StoppingSpec
from nogs.weights import save_network
from staged import Stages, run_of
from tiny import CLASSES, T, pictures

pytestmark = pytest.mark.usefixtures("cached")


@pytest.fixture
def shared(stages: Stages, tmp_path: Path) -> Path:
    """The PS-NOGS network of the pipeline, saved with its card."""
    nogs.load_model(stages.folder / "nogs-0").save_pretrained(
        tmp_path / "stripes", evaluation=stages.folder / "evaluation"
    )
    return tmp_path / "stripes"


def test_a_shared_model_is_the_same_model(stages: Stages, shared: Path) -> None:
    assert {file.name for file in shared.iterdir()} == {"COMPLETE", "README.md", "model.safetensors"}
    image = pictures(np.array([1]), seed=3)[0]
    one, other = nogs.load_model(stages.folder / "nogs-0"), nogs.Model.from_pretrained(shared)
    assert one.predict(image) == other.predict(image)


def test_the_card_has_the_figures_of_the_evaluation(stages: Stages, shared: Path) -> None:
    results = read_results(run_of(stages, "evaluation"), Results)
    scores = results.methods["ps-nogs"]
    card = ModelCard.load(shared / "README.md")
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found == {
        "accuracy": pytest.approx(scores.test_accuracy[0], abs=1e-4),
        "balanced_accuracy": pytest.approx(scores.test_balanced_accuracy[0], abs=1e-4),
    }
    assert card.data.library_name == "nogs"
    assert {"nogs", "ps-nogs"} <= set(card.data.tags)
    for t in range(T):
        share, macs = scores.test_accuracy_by_glimpse[0][t], scores.macs_by_glimpse[t]
        assert f"| {t + 1} | {100 * share:.1f} % | {macs:,} |" in card.text
    assert f"Classes: {', '.join(CLASSES)}." in card.text
    assert "Data: `npz:images.npz`." in card.text
    assert str(stages.folder) not in card.content


def test_the_card_shows_how_to_use_the_model(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typed import save

    monkeypatch.chdir(shared.parent)
    save(pictures(np.array([1]), seed=3)[0], shared.parent / "photograph.jpg")
    (code,) = (shared / "README.md").read_text().split("```python\n")[1:]
    exec(code.partition("```")[0], {})


def test_a_model_without_a_run_has_a_card_without_figures(shared: Path, tmp_path: Path) -> None:
    model = nogs.load_model(shared)
    model.save_pretrained(tmp_path / "again")
    text = (tmp_path / "again" / "README.md").read_text()
    assert "was not evaluated" in text
    assert "## Training" not in text
    with pytest.raises(nogs.UserError, match="was not loaded from a run directory of train"):
        model.save_pretrained(tmp_path / "third", evaluation=tmp_path)


def test_figures_of_another_network_are_refused(stages: Stages, tmp_path: Path) -> None:
    stages.train("unevaluated", "ram", seed=5, iterations=20)
    model = nogs.load_model(stages.folder / "unevaluated")
    with pytest.raises(nogs.UserError, match=r"evaluation does not score .*unevaluated"):
        model.save_pretrained(tmp_path / "out", evaluation=stages.folder / "evaluation")
    assert not (tmp_path / "out").exists()


class Hub:
    """The part of the hub's interface that is used, with what was uploaded."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.repositories: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.repositories[repo_id] = private

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        if self.fault:
            raise self.fault
        assert commit_message
        self.files = {file.name: file.read_bytes() for file in folder_path.iterdir()}


def test_an_upload_is_a_folder_that_loads(stages: Stages, tmp_path: Path) -> None:
    hub, model = Hub(), nogs.load_model(stages.folder / "nogs-0")
    address = push_to_hub(model, "someone/stripes", private=True, api=hub)
    assert address == "https://huggingface.co/someone/stripes"
    assert hub.repositories == {"someone/stripes": True}
    for name, content in hub.files.items():
        (tmp_path / name).write_bytes(content)
    image = pictures(np.array([1]), seed=3)[0]
    assert nogs.load_model(tmp_path).predict(image) == model.predict(image)
    assert b'nogs.load_model("someone/stripes")' in hub.files["README.md"]


def test_a_refused_upload_is_one_line(stages: Stages) -> None:
    model = nogs.load_model(stages.folder / "nogs-0")
    with pytest.raises(nogs.RunError, match=r"^name=someone/stripes cannot be uploaded .*: 401 Unauthorized$"):
        push_to_hub(model, "someone/stripes", api=Hub(ValueError("401 Unauthorized\nrequest id: 7")))


def stranger(name: str, folder: Path) -> Path:
    """A small model with an overview and stopping heads, or with a halting unit."""
    spec = SPECS[name]
    network = spec.build()
    lively(network, seed=1)
    Model(spec, network).save(folder)
    if name == "act":
        of = HaltingSpec(spec.hidden, 0.1)
        Model(spec, network, halting=Halting(of, of.build())).save(folder)
    else:
        digest = RunDirectory(folder).hash_of("model.safetensors")
        heads = StoppingSpec(spec.glimpses, (0.1,), digest)
        Model(spec, network, stopping=Heads(heads, heads.build())).save(folder)
    return folder


EXTREMES = [0, -1, 1, 2**14, 2**24, 2**31, 2**63, 10**400, 1e308, None, True, "", "x" * 5000, "ram", [], {}, [0] * 99]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(below for key, child in items for below in leaves(child, (*path, key)))]


def lie(file: Path, chance: random.Random) -> None:
    """Replace one or two values of the spec."""
    tensors = load_file(file)
    with file.open("rb") as opened:
        header = json.loads(opened.read(struct.unpack("<Q", opened.read(8))[0]))
    spec = json.loads(header["__metadata__"]["nogs"])
    for _ in range(chance.randint(1, 2)):
        *inner, last = chance.choice(leaves(spec)[1:])
        place = spec
        for key in inner:
            place = place[key]
        place[last] = chance.choice(EXTREMES)
        if not isinstance(spec, dict):
            break
    save_file(tensors, file, {"nogs": json.dumps(spec)})


def flip(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    for _ in range(chance.choice([1, 3, 100])):
        content[chance.randrange(min(len(content), chance.choice([8, 2000, 10**9])))] = chance.randrange(256)
    file.write_bytes(content)


def cut(file: Path, chance: random.Random) -> None:
    file.write_bytes(file.read_bytes()[: chance.randrange(file.stat().st_size)])


def grow(file: Path, chance: random.Random) -> None:
    file.write_bytes(file.read_bytes() + chance.randbytes(chance.choice([1, 1000])))


def alter_tensor(file: Path, chance: random.Random) -> None:
    """Give a tensor another shape, type or name, or remove it."""
    with file.open("rb") as opened:
        header = json.loads(opened.read(struct.unpack("<Q", opened.read(8))[0]))
    tensors = load_file(file)
    name = chance.choice(sorted(tensors))
    tensor = tensors.pop(name)
    dtypes = [torch.float64, torch.float16, torch.int64, torch.uint8, torch.complex64, torch.bool]
    harms: list[Callable[[], object]] = [
        lambda: None,
        lambda: tensors.update({name + "x": tensor}),
        lambda: tensors.update({name: tensor.to(chance.choice(dtypes))}),
        lambda: tensors.update({name: torch.zeros(0)}),
        lambda: tensors.update({name: tensor[None]}),
    ]
    chance.choice(harms)()
    save_file(tensors, file, header["__metadata__"])


def rubbish(file: Path, chance: random.Random) -> None:
    texts = [b"", b"{}", b"[" * 10**5, b'{"stage": "train"}', b"\xff\xfe", b"null", json.dumps({"a": 1e308}).encode()]
    file.write_bytes(chance.choice(texts))


HARMS = [lie, lie, lie, flip, flip, cut, grow, alter_tensor, alter_tensor, rubbish]


def fuzz(folder: Path, source: Path, seed: int) -> str | None:
    """Damage one file of a copy of ``source``; return the refusal, None if the model loads and predicts."""
    chance = random.Random(seed)
    for file in folder.iterdir():
        file.unlink()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = sorted(folder.glob("*.safetensors"))
    harm = chance.choice(HARMS)
    others = [folder / "COMPLETE", folder / "config.json"] if harm is rubbish else []
    harm(chance.choice([*weights, *others]), chance)
    if harm is not rubbish and chance.random() < 0.9:  # strangers write checksums too, or none
        write_marker(folder) if chance.random() < 0.5 else (folder / "COMPLETE").unlink()
    try:
        model = nogs.load_model(folder)
        if model.spec.grid.image_px <= 64 and model.spec.glimpses <= 8:
            answer = model.predict(np.zeros((40, 40), np.uint8))
            assert set(answer.probs) == set(model.classes)
    except nogs.UserError as error:
        return str(error)
    return None


def check_strangers(tmp_path: Path, seeds: range) -> None:
    sources = [stranger(name, tmp_path / name) for name in ("gain", "act")]
    (tmp_path / "folder").mkdir()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusals = [fuzz(tmp_path / "folder", sources[seed % 2], seed) for seed in seeds]
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 100
    lines = [text for text in refusals if text is not None]
    assert len(lines) > 0.4 * len(seeds)
    for text in lines:
        assert "\n" not in text
        assert str(tmp_path / "folder") in text
        assert len(text) < 1000


def test_models_of_strangers_are_refused_in_one_line(tmp_path: Path) -> None:
    check_strangers(tmp_path, range(50))


@pytest.mark.slow
def test_a_thousand_models_of_strangers_are_refused_in_one_line(tmp_path: Path) -> None:
    check_strangers(tmp_path, range(50, 1050))


def test_a_spec_larger_than_its_file_allocates_nothing(tmp_path: Path) -> None:
    """16 million locations over an overview of 4,096 pixels: tables of the grid alone would take 137 GB."""
    file = stranger("gain", tmp_path / "model") / "model.safetensors"
    tensors = load_file(file)
    spec = nogs.load_model(file.parent).spec
    lying = replace(spec, grid=nogs.Grid(16384, 8, 4), overview_px=4096, hidden=2**14)
    save_file(tensors, file, {"nogs": json.dumps({"kind": "attention", **as_json(lying)})})
    (file.parent / "COMPLETE").unlink()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(nogs.UserError, match="does not fit its spec"):
        nogs.load_model(file.parent)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


def test_a_whole_number_beyond_floats_is_refused() -> None:
    with pytest.raises(nogs.UserError, match=r"^cost=1000.*: expected float$"):
        from_json(HaltingSpec, {"hidden": 8, "cost": 10**400})
    with pytest.raises(nogs.UserError, match=r"^hidden=1000.*: must be at most"):
        from_json(HaltingSpec, {"hidden": 10**400, "cost": 1.0})


@pytest.mark.parametrize(
    ("name", "spec"),
    [("halting", HaltingSpec(25, 0.1)), ("stopping", StoppingSpec(3, (0.1,), ""))],
    ids=["halting", "stopping"],
)
def test_parts_of_another_network_are_refused(tmp_path: Path, name: str, spec: HaltingSpec | StoppingSpec) -> None:
    folder = RunDirectory(stranger("gain", tmp_path / "model"))
    if isinstance(spec, StoppingSpec):
        spec = replace(spec, network=folder.hash_of("model.safetensors"))
    (folder.path / "COMPLETE").unlink()
    save_network(folder, name, spec.build(), spec)
    with pytest.raises(nogs.UserError, match=rf"its {name}\.safetensors is of another network"):
        nogs.load_model(folder.path)
