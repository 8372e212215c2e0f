"""Networks and their specs, saved and loaded; and files whose metadata do not describe their tensors."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import nogs
from nogs.config.groups import PosteriorNetwork
from nogs.glimpses.grid import Grid
from nogs.runs.directory import RunDirectory
from nogs.specs import (
    AttentionSamplingSpec,
    CNNSpec,
    HaltingSpec,
    HardAttentionSpec,
    MultipleInstancesSpec,
    NetworkSpec,
    PatchSelectionSpec,
    PosteriorSpec,
    StoppingSpec,
)
from nogs.weights import load_network, read_spec, save_network, start_from

GRID = Grid(image_px=16, glimpse_px=6, stride_px=5)
CLASSES = ("cat", "dog", "newt")
CPU = torch.device("cpu")
ATTENTION = HardAttentionSpec(GRID, 1, CLASSES, hidden=8, glimpses=2, method="ram")
SPECS: dict[str, NetworkSpec[Any]] = {
    "attention": ATTENTION,
    "path": HardAttentionSpec(GRID, 3, CLASSES, hidden=8, glimpses=2, method="path", path=(1, 8)),
    "lookahead": PosteriorSpec(GRID, 1, CLASSES, False, PosteriorNetwork(hidden=8)),
    "avp-cnn": PosteriorSpec(GRID, 1, CLASSES, True, PosteriorNetwork(posterior="avp-cnn")),
    "halting": HaltingSpec(hidden=8, cost=0.01),
    "stopping": StoppingSpec(2, (0.1, 0.2, 0.4), network="0" * 64),
    "cnn": CNNSpec("shufflenet-v2", 12, 0.25, 1, CLASSES),
    "small-resnet": CNNSpec("small-resnet", 32, 1.0, 1, CLASSES),
    "attention-sampling": AttentionSamplingSpec(
        Grid(30, 13, 13), 1, CLASSES, 8, 3, replacement=False, entropy_weight=0.1
    ),
    "patch-selection": PatchSelectionSpec(GRID, 1, CLASSES, memory=3),
    "multiple-instances": MultipleInstancesSpec(GRID, 1, CLASSES),
}


SLOW = ("avp-cnn", "small-resnet")
"""Networks that take long to build. The default run has another network of each of these kinds."""


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SPECS])
def spec(request: pytest.FixtureRequest) -> NetworkSpec[Any]:
    return SPECS[request.param]


def save(path: Path, spec: NetworkSpec[Any]) -> RunDirectory:
    path.mkdir()
    torch.manual_seed(0)
    run = RunDirectory(path)
    save_network(run, "model", spec.build(), spec)
    return run


def load(run: RunDirectory, kind: type[NetworkSpec[Any]]) -> Any:
    return load_network(run, "model", kind=kind, device=CPU)  # type: ignore[call-overload]


def test_a_network_comes_back_with_its_spec(tmp_path: Path, spec: NetworkSpec[Any]) -> None:
    run = save(tmp_path / "run", spec)
    found, network = load(run, type(spec))
    assert found == spec
    torch.manual_seed(0)
    expected = spec.build().state_dict()
    assert network.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())
    assert not network.training
    buffers = dict(spec.build().named_buffers())  # those too that are not saved
    assert all(torch.equal(value, buffers[name]) for name, value in network.named_buffers())


def test_a_network_of_another_kind_is_refused(tmp_path: Path, spec: NetworkSpec[Any]) -> None:
    run = save(tmp_path / "run", spec)
    for kind in (HardAttentionSpec, PosteriorSpec, StoppingSpec, CNNSpec, AttentionSamplingSpec, PatchSelectionSpec):
        if kind is not type(spec):
            refused(run, kind, f"is no network of kind '{kind.kind}', but '{spec.kind}'")


OF_ANY_TYPE = (None, -1, 0, 2.5, True, "7", "", [], [1], {}, {"a": 1}, 10**9, 10**30, 1e308, "x" * 10_000)
"""Values for a field of metadata. Some are right for a field; the file then has to fit them."""


def fields(spec: NetworkSpec[Any], metadata: dict[str, Any]) -> list[tuple[str, ...]]:
    """The place of every value in the metadata of a network."""
    nested = [(key, inner) for key, value in metadata.items() if isinstance(value, dict) for inner in value]
    return [*((key,) for key in metadata), *nested]


def test_metadata_that_do_not_describe_the_tensors_are_refused(tmp_path: Path, spec: NetworkSpec[Any]) -> None:
    """One field at a time, with values of every type and size: an error of one line, at once, or the same network."""
    run = save(tmp_path / "run", spec)
    metadata, tensors = run.load_metadata("model"), run.load_tensors("model")
    outputs = {}
    for place in fields(spec, metadata):
        for value in OF_ANY_TYPE:
            altered = {key: dict(part) if isinstance(part, dict) else part for key, part in metadata.items()}
            (altered if len(place) == 1 else altered[place[0]])[place[-1]] = value
            run.save_tensors("model", tensors, **altered)
            started = time.monotonic()
            try:
                found, network = load(run, type(spec))
            except nogs.UserError as error:
                outputs[place, str(value)[:20]] = str(error)
            else:  # a field that no tensor depends on, with a value that it may have
                assert all(torch.equal(tensor, tensors[key]) for key, tensor in network.state_dict().items()), place
                assert found.build().state_dict().keys() == tensors.keys(), place
            assert time.monotonic() - started < 20, (place, value)
    for case, message in outputs.items():
        assert "\n" not in message, case
        assert len(message) < 500, case
        assert str(run.path / "model.safetensors") in message, (case, message)
    assert len(outputs) > 10 * len(fields(spec, metadata))


LIES: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("attention", lambda meta: meta.update(channels=10**9), "channels=1000000000: must be at most"),
    ("attention", lambda meta: meta.update(channels=3), "embedding.what.0.weight has shape"),
    ("attention", lambda meta: meta.update(hidden=16384), "has shape"),
    ("attention", lambda meta: meta.update(classes=["a", "b"]), "classifier.bias has shape"),
    ("attention", lambda meta: meta.update(classes=[str(n) for n in range(100_000)]), "has shape"),
    ("attention", lambda meta: meta.update(classes=["a", "a", "b"]), "give one or more, each once"),
    ("attention", lambda meta: meta.update(classes="abc"), "classes='abc': expected tuple"),
    ("attention", lambda meta: meta.update(glimpses=0), "glimpses=0: must be at least 1"),
    ("attention", lambda meta: meta.update(glimpses=10), "glimpses=10 does not fit a grid of 9 locations"),
    ("attention", lambda meta: meta.update(glimpses=10**6), "does not fit a grid of 9 locations"),
    ("attention", lambda meta: meta.update(glimpses="2"), "glimpses='2': expected int"),
    ("attention", lambda meta: meta.update(method="rum"), "method='rum' does not exist"),
    ("attention", lambda meta: meta.update(method="path"), "give a path to methods that look along one"),
    ("attention", lambda meta: meta.update(path=[1, 2]), "give a path to methods that look along one"),
    ("attention", lambda meta: meta["grid"].update(stride_px=1), "locator.2.bias has shape"),
    ("attention", lambda meta: meta["grid"].update(image_px=10**6), "image_px=1000000: must be at most"),
    ("attention", lambda meta: meta["grid"].update(image_px=2**14, stride_px=1), "locations: choose at least"),
    ("attention", lambda meta: meta["grid"].update(zz=1), "`zz` is unknown in Grid"),
    ("attention", lambda meta: meta["grid"].pop("scales"), "`scales` is missing in Grid"),
    ("attention", lambda meta: meta.update(grid=[16, 6, 5, 1]), "Grid is [16, 6, 5, 1], not an object"),
    ("attention", lambda meta: meta.clear(), "is no network of kind 'attention', but 'None'"),
    ("attention", lambda meta: meta.pop("hidden"), "`hidden` is missing in HardAttentionSpec"),
    ("attention", lambda meta: meta.update(extra=1), "`extra` is unknown in HardAttentionSpec"),
    ("path", lambda meta: meta.update(path=[1, 9]), "is not 2 cells from 0 to 8"),
    ("path", lambda meta: meta.update(path=[1]), "is not 2 cells from 0 to 8"),
    ("path", lambda meta: meta.update(path=None), "give a path to methods that look along one"),
    ("lookahead", lambda meta: meta.update(multilabel=1), "multilabel=1: expected bool"),
    ("lookahead", lambda meta: meta["network"].update(posterior="avp"), "posterior='avp': expected"),
    ("lookahead", lambda meta: meta["network"].update(posterior="avp-cnn"), "has shape"),
    ("avp-cnn", lambda meta: meta["network"].update(backbone="nosuchnet"), "timm has no such model"),
    ("stopping", lambda meta: meta.update(costs=[]), "costs=(): give one or more"),
    ("stopping", lambda meta: meta.update(costs=[0.1]), "has shape"),
    ("stopping", lambda meta: meta.update(glimpses=1), "glimpses=1: must be at least 2"),
    ("stopping", lambda meta: meta.update(glimpses=10**6), "glimpses=1000000: must be at most"),
    ("cnn", lambda meta: meta.update(width=10**9), "width=1000000000.0: must be at most"),
    ("cnn", lambda meta: meta.update(architecture="vgg"), "architecture='vgg'"),
    ("attention-sampling", lambda meta: meta.update(patches=65), "patches=65 exceeds the 64 pixels of an overview"),
    ("attention-sampling", lambda meta: meta.update(overview_px=31), "overview=31 exceeds image_px=30"),
    ("attention-sampling", lambda meta: meta["grid"].update(glimpse_px=12), "patch_size=12: attention sampling needs"),
    ("patch-selection", lambda meta: meta.update(channels=3), "encoder.0.weight has shape"),
]


@pytest.mark.parametrize(("name", "lie", "complaint"), LIES, ids=[f"{name}: {says}"[:60] for name, _, says in LIES])
def test_altered_metadata_are_refused_by_name(
    tmp_path: Path, name: str, lie: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    run = save(tmp_path / "run", SPECS[name])
    metadata = run.load_metadata("model")
    lie(metadata)
    run.save_tensors("model", run.load_tensors("model"), **metadata)
    refused(run, type(SPECS[name]), complaint)


def refused(run: RunDirectory, kind: type[NetworkSpec[Any]], complaint: str) -> None:
    for read in (lambda: load(run, kind), lambda: read_spec(run, "model", kind=kind)):
        with pytest.raises(nogs.UserError) as error:
            read()
        message = str(error.value)
        assert message.startswith(str(run.path / "model.safetensors")), message
        assert complaint in message
        assert "\n" not in message
        if "has shape" in complaint or "timm" in complaint:
            break  # which takes the tensors, and not the spec alone


@pytest.mark.parametrize("harm", ["renamed", "missing", "more", "reshaped"])
def test_tensors_that_are_not_those_of_the_spec_are_refused(tmp_path: Path, spec: NetworkSpec[Any], harm: str) -> None:
    run = save(tmp_path / "run", spec)
    tensors = run.load_tensors("model")
    first = next(iter(tensors))
    tensor = tensors[first]
    if harm in ("renamed", "missing"):
        del tensors[first]
    if harm in ("renamed", "more"):
        tensors["other"] = tensor.clone()
    if harm == "reshaped":
        tensors[first] = tensor[None]
    run.save_tensors("model", tensors, **run.load_metadata("model"))
    with pytest.raises(nogs.UserError, match=r"model\.safetensors does not fit its spec: \S+ has shape"):
        load(run, type(spec))


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 64, b"9" * 100], ids=["empty", "zeros", "ones", "text"])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    run = save(tmp_path / "run", SPECS["attention"])
    (run.path / "model.safetensors").write_bytes(content)
    refused(run, HardAttentionSpec, "")


def test_a_network_starts_from_the_weights_that_have_its_shapes(tmp_path: Path) -> None:
    """Over another grid the last layer of the location head is left as it is, and all else is copied."""
    run = save(tmp_path / "run", replace(ATTENTION, grid=Grid(image_px=40, glimpse_px=6, stride_px=5)))
    _, other = load_network(run, "model", kind=HardAttentionSpec, device=CPU)
    torch.manual_seed(1)
    network = ATTENTION.build()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    start_from(run, network)
    left = {"locator.2.weight", "locator.2.bias"}
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name] if name in left else other.state_dict()[name]), name
