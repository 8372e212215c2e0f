"""The masked-CNN posterior: the order of glimpses, the paper's backbone, and backbones that cannot be had."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from torch import nn

import nogs.posterior.backbones
from nogs.errors import RunError, UserError
from nogs.glimpses.fovea import Glimpses
from nogs.glimpses.grid import Grid
from nogs.posterior.masked_cnn import AVPCNN
from posteriors import make, noise, observe
from tiny import GEOMETRY, driver, write_npz

GRID = Grid(image_px=32, glimpse_px=8, stride_px=8)


@pytest.mark.parametrize("cells", [[0, 15, 5], [5, 6, 9]], ids=["apart", "overlapping"])
def test_the_avp_cnn_does_not_depend_on_the_order(cells: list[int]) -> None:
    posterior, images = make("avp-cnn"), noise(2)
    with torch.inference_mode():
        answer = [posterior(observe(images, list(order))).logits for order in permutations(cells)]
        other = posterior(observe(images, [*cells[:2], 3])).logits
    for again in answer[1:]:
        torch.testing.assert_close(again, answer[0], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(other, answer[0])


def test_the_papers_backbone_takes_the_mask_as_a_fourth_channel() -> None:
    torch.manual_seed(0)
    grid = Grid(image_px=32, glimpse_px=8, stride_px=8)
    posterior = AVPCNN(grid, channels=3, classes=2, multilabel=False, backbone="densenet121").eval()
    first = next(layer for layer in posterior.backbone.modules() if isinstance(layer, nn.Conv2d))
    assert first.in_channels == 4
    patches = torch.randint(0, 256, (2, 1, 3, 8, 8), dtype=torch.uint8)
    with torch.inference_mode():
        answer = posterior(Glimpses(patches, torch.tensor([[0], [5]])))
    assert answer.probs.shape == (2, 2)
    assert torch.isfinite(answer.logits).all()


@pytest.fixture(params=["hangs", "refuses"])
def no_network(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that takes connections and never answers, or that takes none; nothing was downloaded before."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(nogs.posterior.backbones, "PROBE_SECONDS", 0.3)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if request.param == "hangs":
            server.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield


@pytest.mark.parametrize(("name", "pretrained"), [("hf-hub:timm/resnet18.a1_in1k", False), ("resnet18", True)])
@pytest.mark.usefixtures("no_network")
def test_a_download_without_a_network_is_given_up_at_once(name: str, pretrained: bool) -> None:
    import timm  # noqa: F401 # its import is not what is timed

    started = time.monotonic()
    with pytest.raises(RunError, match=rf"^backbone={name}: .* is out of reach .*: connect to it, or choose small"):
        AVPCNN(GRID, channels=3, classes=2, multilabel=False, backbone=name, pretrained=pretrained)
    assert time.monotonic() - started < 5
    assert not constants.HF_HUB_OFFLINE  # what others download later is not affected


@pytest.mark.parametrize(
    ("name", "pretrained", "wrong"),
    [
        ("nosuchnet", False, "timm has no such model; choose small-resnet, or one of timm.list_models"),
        ("densnet121", False, r"timm has no such model; did you mean densenet121\?"),
        ("small-resnt", False, r"timm has no such model; did you mean small-resnet\?"),
        ("timm/resnet18", False, "timm cannot build this model .*hf-hub:timm/resnet18"),
        ("ftp:resnet18", False, "timm cannot build this model .*Unknown model source 'ftp'"),
        ("local-dir:/nowhere", False, "timm cannot build this model"),
        ("resnet18.no_such_weights", True, "timm cannot build this model"),
        ("vit_tiny_patch16_224", False, "does not take images of 32 x 32 pixels .*224"),
    ],
)
def test_an_unusable_backbone_is_refused_in_one_line(
    name: str, pretrained: bool, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nogs.posterior.backbones, "PROBE_SECONDS", 0.3)
    with pytest.raises(UserError, match=f"^backbone={name}: {wrong}") as raised:
        AVPCNN(GRID, channels=3, classes=2, multilabel=False, backbone=name, pretrained=pretrained)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_an_unknown_backbone_leaves_no_run_behind(tmp_path: Path) -> None:
    data, out = f"npz:{write_npz(tmp_path / 'images.npz')}", tmp_path / "posterior"
    how = ("--posterior", "avp-cnn", "--backbone", "densnet121", "--out", out)
    ended = driver().run("fit-posterior", "--data", data, *GEOMETRY, *how)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert ended.err.startswith("nogs: --backbone densnet121: timm has no such model; did you mean densenet121?")
    assert not out.exists()
