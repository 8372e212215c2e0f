"""Whole-image CNNs against the published sizes and costs, and the stage that trains a grid of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import nogs
import nogs.training.loop
from nogs.data import ImageSet
from nogs.data.canvases import Canvases
from nogs.errors import UserError
from nogs.evaluation.cost import macs_of_image
from nogs.pipeline import baselines_of
from nogs.rivals.cnn import ARCHITECTURES, MIN_PX, UPPER_BOUND, WholeImageCNN, shrink
from nogs.runs.directory import RunDirectory
from nogs.stages.baselines import fit_baselines
from tiny import IMAGE_PX, write_npz


def cnn(architecture: str, resolution_px: int, width: float = 0.1, *, channels: int = 3, classes: int = 2) -> Any:
    torch.manual_seed(0)
    return WholeImageCNN(
        architecture, resolution_px=resolution_px, width=width, channels=channels, classes=classes
    ).eval()


def macs(network: Any, channels: int = 3) -> int:
    return macs_of_image(network, channels=channels, image_px=network.resolution_px, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("architecture", "parameters", "million_macs"),
    [("shufflenet-v2", 2_278_604, 146), ("mobilenet-v2", 3_504_872, 300)],
)
def test_at_full_width_they_are_the_published_networks(architecture: str, parameters: int, million_macs: int) -> None:
    """Of 1,000 classes at 224 pixels: torchvision's parameters, and the papers' multiply-adds (to a hundredth)."""
    network = cnn(architecture, 224, 1.0, classes=1000)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert macs(network) == pytest.approx(million_macs * 1e6, rel=0.01)


def test_a_stem_by_hand() -> None:
    """ShuffleNetV2 on 24 grey pixels, a tenth as wide: 24 → 4 channels (2.4, at least 4), stride 2, no pool."""
    network = cnn("shufflenet-v2", 24, channels=1).backbone
    assert tuple(network.conv1[0].weight.shape) == (4, 1, 3, 3)
    assert network.conv1(torch.zeros(1, 1, 24, 24)).shape[2:] == (12, 12)
    assert network.maxpool(torch.zeros(1, 4, 12, 12)).shape[2:] == (12, 12)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_small_image_keeps_a_map_of_two_pixels(architecture: str) -> None:
    """Up to 64 pixels, a 32nd of which is two: the published networks end at a 32nd of the image."""
    last = {"shufflenet-v2": "conv5", "mobilenet-v2": "features"}[architecture]
    for resolution_px in (MIN_PX, 9, 12, 16, 17, 24, 32, 33, 48, 64):
        network = cnn(architecture, resolution_px)
        sizes: list[int] = []
        getattr(network.backbone, last).register_forward_hook(lambda m, i, o, sizes=sizes: sizes.append(o.shape[-1]))
        network(torch.zeros(1, 3, resolution_px, resolution_px, dtype=torch.uint8))
        assert sizes == [1 if resolution_px == MIN_PX else 2]


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, UPPER_BOUND])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_parameter_learns_and_no_image_sees_another(architecture: str, channels: int) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (6, channels, 16, 16), generator=generator, dtype=torch.uint8)
    network = cnn(architecture, 16, 0.25, channels=channels, classes=3)
    with torch.no_grad():
        together, alone = network(images), network(images[2:3])
    assert together.shape == (6, 3)
    torch.testing.assert_close(together[2:3], alone, rtol=1e-4, atol=1e-5)
    network.train()(images)[:, :2].square().sum().backward()
    learns = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters()]
    # The upper bound's residual branches begin at zero, and let nothing through to what is below them.
    assert all(learns) or (architecture == UPPER_BOUND and network.backbone.fc.weight.grad.abs().sum() > 0)


def test_a_network_repeats_itself_in_training() -> None:
    """No dropout: a resumed training could not draw the same."""
    images = torch.randint(0, 256, (4, 3, 12, 12), dtype=torch.uint8)
    network = cnn("mobilenet-v2", 12).train()
    assert torch.equal(network(images), network(images))


def test_wider_and_sharper_costs_more() -> None:
    for architecture in ARCHITECTURES:
        by_width = [macs(cnn(architecture, 24, width)) for width in (0.05, 0.1, 0.25)]
        by_size = [macs(cnn(architecture, px)) for px in (8, 12, 16)]
        assert by_width == sorted(by_width)
        assert by_size == sorted(by_size)


def test_shrinking_averages() -> None:
    chessboard = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 200
    ramp = torch.arange(16).expand(16, 16) * 10
    images = torch.stack((torch.full((16, 16), 77), chessboard, ramp))[:, None].to(torch.uint8)
    small = shrink(images, 8)
    assert small.dtype == torch.uint8
    assert (small[0] == 77).all()
    # Without antialiasing a chessboard would come out as it falls on the new pixels: 0 or 200.
    assert (small[1, 0, 1:-1, 1:-1].int() - 100).abs().max() <= 1
    # A pixel twice as large is the mean of its two: 10 (2 i + 1/2).
    assert (small[2, 0, :, 1:-1].int() - (20 * torch.arange(1, 7) + 5)).abs().max() <= 1
    assert shrink(images, 16) is images


def stage(folder: Path, npz: Path, **how: Any) -> nogs.Baselines:
    config = nogs.Baselines(
        nogs.Machine(folder, device="cpu"),
        nogs.Source(data=f"npz:{npz}"),
        resolutions=(9, IMAGE_PX),
        widths=(0.05,),
        learning_rates=(1e-3, 1e-2),
        iterations=4,
        batch_size=32,
        validate_every=2,
    )
    return replace(config, **how)


def test_the_default_grid_has_five_widths_and_sees_as_many_images_as_the_attention_networks() -> None:
    cnns, attention = nogs.Baselines(nogs.Machine(Path("cnns"))), nogs.Train(nogs.Machine(Path("train"))).optimisation
    assert len(set(cnns.widths)) == 5
    assert cnns.iterations * cnns.batch_size >= attention.iterations * attention.batch_size
    assert cnns.patience * cnns.batch_size >= attention.patience * attention.batch_size


@pytest.mark.parametrize(("iterations", "batch_size", "patience"), [(10_000, 64, 4000), (7, 100, 5), (50, 512, 0)])
def test_the_pipelines_cnns_see_as_many_images_as_its_attention_networks(
    iterations: int, batch_size: int, patience: int
) -> None:
    """No fewer, and less than a batch more; patience=0, which never stops a training, stays 0."""
    config = nogs.Run(nogs.Machine(Path("run")), iterations=iterations, batch_size=batch_size, patience=patience)
    cnns = baselines_of(config)
    for ours, theirs in ((cnns.iterations, iterations), (cnns.patience, patience)):
        assert theirs * batch_size <= ours * cnns.batch_size < theirs * batch_size + cnns.batch_size


def test_the_pipeline_trains_one_cnn_of_each_size_that_is_given() -> None:
    config = nogs.Run(nogs.Machine(Path("run")), cnn_sizes=(12, 48))
    cnns = baselines_of(config)
    assert cnns.resolutions == (12, 48)
    assert not cnns.upper_bound
    assert len(cnns.architectures) == len(cnns.widths) == len(cnns.learning_rates) == len(cnns.seeds) == 1
    assert baselines_of(replace(config, cnns=True)) == baselines_of(replace(config, cnns=True, cnn_sizes=()))


def silent(done: int, note: str) -> None:
    pass


def test_the_grid_and_what_it_leaves(tmp_path: Path) -> None:
    config = stage(tmp_path / "cnn", write_npz(tmp_path / "images.npz"))
    run = fit_baselines(config, silent)
    results = json.loads((run.path / "results.json").read_text())
    rows = results["cnn"]
    assert run.complete
    # 2 architectures x 2 resolutions, each once: a learning rate has been chosen.
    assert len({(row["architecture"], row["resolution_px"], row["width"]) for row in rows}) == len(rows) == 4
    assert len([path for path in run.path.iterdir() if path.is_dir()]) == 2 * 4 + 1
    for row in rows:
        other = {1e-3: "0.01", 1e-2: "0.001"}[row["learning_rate"]]
        lost = row["name"].rpartition("-lr")[0] + f"-lr{other}-seed0"
        assert (
            row["validation_accuracy"]
            >= json.loads((run.path / lost / "results.json").read_text())["validation_accuracy"]
        )
        beaten = [
            r
            for r in rows
            if r is not row
            and (r["macs"], -r["validation_accuracy"]) <= (row["macs"], -row["validation_accuracy"])
            and r["validation_accuracy"] >= row["validation_accuracy"]
        ]
        assert row["on_frontier"] is (not beaten)
    assert [row["macs"] for row in rows] == sorted(row["macs"] for row in rows)
    assert results["upper_bound"]["architecture"] == UPPER_BOUND
    assert results["upper_bound"]["resolution_px"] == IMAGE_PX
    _test_figures(RunDirectory(run.path / f"{rows[0]['name']}-seed0"), rows[0])
    assert fit_baselines(replace(config, machine=replace(config.machine, resume=True)), silent).complete


def _test_figures(run: RunDirectory, row: dict[str, Any]) -> None:
    """Balanced accuracy is the mean recall; AUROC the share of (positive, negative) pairs in the right order."""
    record = run.load_tensors("test")
    log_probs, labels = record["log_probs"].double(), record["labels"]
    right = log_probs.argmax(-1) == labels
    assert row["test_accuracy"] == pytest.approx(right.double().mean().item())
    assert row["test_balanced_accuracy"] == pytest.approx(
        sum(right[labels == c].double().mean().item() for c in range(3)) / 3
    )
    areas = []
    for c in range(3):
        gap = log_probs[labels == c, c][:, None] - log_probs[labels != c, c]
        areas.append(((gap > 0).double() + 0.5 * (gap == 0)).mean().item())
    assert row["test_auroc"] == pytest.approx(sum(areas) / 3, abs=1e-6)


PATCHES = nogs.PatchOptions(patch_size=13, overview=8, patches=2, memory=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("mobilenet-v2", "mobilenet-v2-12px-x0.1"),
        ("attention-sampling", f"attention-sampling-{IMAGE_PX}px"),
        ("patch-selection", f"patch-selection-{IMAGE_PX}px"),
        ("multiple-instances", f"multiple-instances-{IMAGE_PX}px"),
    ],
)
def test_what_is_resumed_is_what_was_not_stopped(
    architecture: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of the second of two trainings, after its first checkpoint: the same bits."""
    monkeypatch.setattr(nogs.training.loop, "CHECKPOINT_SECONDS", 0.0)
    npz = write_npz(tmp_path / "images.npz")
    small: dict[str, Any] = {"architectures": (architecture,), "resolutions": (12,), "widths": (0.1,)}
    small |= {"upper_bound": False, "patches": PATCHES}
    whole = fit_baselines(stage(tmp_path / "whole", npz, **small), silent)

    def stop(done: int, note: str) -> None:
        # Killed at the report of its second validation, which no checkpoint has: two iterations are repeated.
        if done == 8 and "lr0.01-seed0: val" in note:
            raise KeyboardInterrupt

    config = stage(tmp_path / "stopped", npz, **small)
    with pytest.raises(KeyboardInterrupt):
        fit_baselines(config, stop)
    stopped = fit_baselines(replace(config, machine=replace(config.machine, resume=True)), silent)
    for file in ("results.json", *(f"{name}-lr{rate}-seed0/model.safetensors" for rate in ("0.001", "0.01"))):
        assert (stopped.path / file).read_bytes() == (whole.path / file).read_bytes()


@pytest.mark.slow
def test_networks_that_read_patches_stand_beside_cnns(tmp_path: Path) -> None:
    """Each once, on images of full size, with the share of the pixels that it reads."""
    architectures = ("attention-sampling", "mobilenet-v2", "patch-selection")
    how: dict[str, Any] = {"architectures": architectures, "resolutions": (9, 12), "upper_bound": False}
    run = fit_baselines(stage(tmp_path / "rivals", write_npz(tmp_path / "images.npz"), patches=PATCHES, **how), silent)
    rows = json.loads((run.path / "results.json").read_text())["cnn"]
    found = {row["name"].partition("-lr")[0]: row for row in rows}
    sampling, selection = f"attention-sampling-{IMAGE_PX}px", f"patch-selection-{IMAGE_PX}px"
    assert found.keys() == {"mobilenet-v2-9px-x0.05", "mobilenet-v2-12px-x0.05", sampling, selection}
    # Two patches of 13 pixels on 16, which may overlap, and an overview of 8.
    assert 13**2 + 8**2 <= found[sampling].pop("pixels_read_share") * IMAGE_PX**2 <= 16**2
    assert found[sampling].pop("overview_px") == 8
    for row in found.values():
        assert (row.get("pixels_read_share", 1.0), row.get("overview_px", 0)) == (1.0, 0)
        assert row["macs"] > 0
        _test_figures(RunDirectory(run.path / f"{row['name']}-seed0"), row)


def test_canvases_are_never_in_memory_at_full_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 canvases of 64 pixels, a reduction draws 4 at a time, and networks at full size draw their batch."""
    drawn: list[int] = []
    draw = Canvases._draw

    def spy(self: Canvases, stamps: torch.Tensor, first: torch.Tensor, side: int) -> torch.Tensor:
        drawn.append(len(stamps) * side**2)
        return draw(self, stamps, first, side)

    canvases = Canvases(
        torch.randint(0, 256, (9, 28, 28), dtype=torch.uint8),
        torch.tensor([[i % 9, 0, 0, 28, i % 30, (7 * i) % 30] for i in range(40)], dtype=torch.int32)[:, None],
        image_px=64,
    )
    split = torch.tensor([0, 0, 1, 2]).repeat(10)
    data = ImageSet(canvases, torch.arange(40) // 4 % 2, ("a", "b"), split, torch.arange(40), ("",) * 40)
    monkeypatch.setattr("nogs.stages.baselines.load", lambda source: data)
    monkeypatch.setattr("nogs.stages.baselines.fingerprint", lambda data: "canvases")
    monkeypatch.setattr("nogs.data.drawn.DRAWN_AT_ONCE", 4 * 64**2)
    monkeypatch.setattr(Canvases, "_draw", spy)
    architectures = ("mobilenet-v2", "attention-sampling", "patch-selection")
    how: dict[str, Any] = {"architectures": architectures, "resolutions": (12, 64), "batch_size": 4, "patches": PATCHES}
    config = replace(
        stage(tmp_path / "canvases", tmp_path / "no.npz", upper_bound=False, iterations=2, **how),
        learning_rates=(1e-3,),
    )
    fit_baselines(config, silent)
    # Evaluation reads ten images at a time, of which patches cover each at most twice.
    assert max(drawn) <= 2 * 10 * 64**2
    reduced = shrink(canvases, 12)
    assert torch.equal(reduced, shrink(canvases[:], 12))
    assert shrink(canvases, 64) is canvases


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (
            {"architectures": ("vgg",)},
            "architectures=vgg: choose among shufflenet-v2, mobilenet-v2, attention-sampling",
        ),
        ({"resolutions": (8, 17)}, "resolutions=17: choose 8 to 16, the size of the images"),
        ({"resolutions": (4,)}, "resolutions=4: choose 8 to 16, the size of the images"),
        ({"widths": (0.1, 0.1)}, "widths=0.1,0.1: give one or more, each once"),
        (
            {"architectures": ("patch-selection",), "patches": nogs.PatchOptions(patch_size=17)},
            "patch_size=17 exceeds image_px=16: choose at most 16",
        ),
        (
            {"architectures": ("attention-sampling",), "patches": nogs.PatchOptions(patch_size=13)},
            "overview=180 exceeds image_px=16: choose at most 16",
        ),
        (
            {"architectures": ("attention-sampling",), "patches": nogs.PatchOptions(patch_size=12, overview=8)},
            "patch_size=12: attention sampling needs at least 13",
        ),
        ({"learning_rates": ()}, r"learning_rates=\(none\): give one or more, each once"),
    ],
)
def test_an_invalid_grid_is_refused_before_the_run_starts(tmp_path: Path, how: dict[str, Any], says: str) -> None:
    config = stage(tmp_path / "cnn", write_npz(tmp_path / "images.npz"), **how)
    with pytest.raises(UserError, match=says):
        fit_baselines(config, silent)
    assert not config.machine.out.exists()


def test_many_labels_are_refused(tmp_path: Path) -> None:
    config = stage(tmp_path / "cnn", write_npz(tmp_path / "images.npz", multilabel=True))
    with pytest.raises(UserError, match="choose `task` among striped, across"):
        fit_baselines(config, silent)
