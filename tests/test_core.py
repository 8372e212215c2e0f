"""The core that reads all glimpses at once: a set, whatever way it is read; and training at random sets of cells."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

import nogs
from nogs.attention.annealed import random_set_loss
from nogs.attention.choosers import along, greedy, sampling
from nogs.attention.classify import classify, look_at_all
from nogs.attention.core import AttentionCore
from nogs.attention.network import HardAttention, State, stack_states
from nogs.attention.train_step import Training
from nogs.evaluation.cost import macs_by_glimpse
from nogs.glimpses.fovea import look
from nogs.glimpses.grid import Grid
from nogs.stopping.rules import never
from staged import silent
from tiny import GLIMPSE_PX, STRIDE_PX, T, write_npz

GRID = Grid(24, 8, 4)


def network(overview_px: int = 0) -> HardAttention:
    torch.manual_seed(0)
    return HardAttention(GRID, channels=1, classes=4, hidden=8, overview_px=overview_px, core="attention").eval()


def noise(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 1, 24, 24), generator=Generator().manual_seed(0)).to(torch.uint8)


def test_attention_by_hand() -> None:
    """One head's weights and values, from its own projections, in a loop."""
    torch.manual_seed(1)
    core = AttentionCore(8, 5)
    embedded = torch.randn(2, 3, 8)
    block = core.glimpses
    tokens = torch.cat((core.start.expand(2, -1, -1), embedded), dim=1)
    normed = block.norm(tokens)
    query, (key, value) = block.query(normed), block.key_value(normed).chunk(2, dim=-1)
    read = torch.zeros_like(tokens)
    width = 2  # of each of four heads
    for b in range(2):
        for head in range(4):
            part = slice(head * width, (head + 1) * width)
            for i in range(4):
                weights = torch.stack([query[b, i, part] @ key[b, j, part] / math.sqrt(width) for j in range(4)])
                read[b, i, part] = sum(w * value[b, j, part] for j, w in enumerate(weights.softmax(0)))
    mixed = tokens + block.mix(read)
    torch.testing.assert_close(block(tokens, tokens), mixed + block.each(mixed))


def test_the_state_does_not_depend_on_the_order_of_the_glimpses() -> None:
    net, images = network(), noise(3)
    cells = torch.tensor([[4, 11, 20]]).expand(3, -1)
    begin = net.begin(images, torch.arange(3))
    one, other = (net.encode(look(images, GRID, of), begin) for of in (cells, cells.flip(1)))
    torch.testing.assert_close(one[:, -1], other[:, -1])
    assert not torch.allclose(one[:, 0], other[:, 0])
    torch.testing.assert_close(net.after_all(begin, look(images, GRID, cells)), one[:, -1])


@pytest.mark.parametrize("overview_px", [0, 6])
def test_all_ways_to_run_the_network_agree(overview_px: int) -> None:
    """Step by step, along given cells, in a rollout, with early stopping, and for some of the images."""
    net, images, rows = network(overview_px), noise(5), torch.arange(5)
    begin = net.begin(images, rows)
    steps = net.unroll(images, rows, begin=begin, glimpses=3, choose=sampling(Generator().manual_seed(1)))
    cells, states = stack_states(steps)
    torch.testing.assert_close(net.encode(look(images, GRID, cells), begin), states)
    torch.testing.assert_close(net.after_all(begin, look(images, GRID, cells)), states[:, -1])
    rollout = net(images, glimpses=3, choose=sampling(Generator().manual_seed(1)))
    torch.testing.assert_close(rollout.states, states)
    for found, expected in zip(net.rollout(cells, states, begin), rollout, strict=True):
        torch.testing.assert_close(found, expected)
    few = torch.tensor([3, 1])
    of_few = net.encode(look(images, GRID, cells[few], few), begin.select(few))
    torch.testing.assert_close(of_few, states[few])
    with torch.inference_mode():
        together = look_at_all(net, images, rows, glimpses=3, choose=greedy)
        answers = classify(net, images, glimpses=3, choose=greedy, stop=never)
        torch.testing.assert_close(answers.class_logits, together.class_logits[:, -1])

        def odd_after_first(class_logits: Tensor, t: int, location_logits: Tensor) -> Tensor:
            return torch.arange(len(class_logits)) % 2 == 1 if t == 1 else torch.zeros(len(class_logits)).bool()

        some = classify(net, images, glimpses=3, choose=greedy, stop=odd_after_first)
    torch.testing.assert_close(some.class_logits[::2], together.class_logits[::2, -1])
    torch.testing.assert_close(some.class_logits[1::2], together.class_logits[1::2, 0])


def test_every_parameter_is_reached() -> None:
    net = network()
    rollout = net(noise(6), glimpses=3, choose=sampling(Generator().manual_seed(2)))
    (rollout.class_logits.square().sum() + rollout.baselines.sum() - rollout.log_policy.sum()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name


def test_a_later_glimpse_costs_more_because_it_reads_all_before_it() -> None:
    net = network()
    costs = macs_by_glimpse(net, channels=1, glimpses=4)
    width, hidden = 64, 8

    def core(n: int) -> int:
        """Of n tokens: projections, attention and perceptron of each in the first block, of one in the second."""
        first = n * 8 * width**2 + 2 * n**2 * width
        second = (2 * n + 6) * width**2 + 2 * n * width
        return first + second + width * hidden

    steps = [after - before for before, after in pairwise(costs)]
    assert [after - before for before, after in pairwise(steps)] == [core(t + 2) - core(t + 1) for t in range(2, 4)]


def training(**options: object) -> tuple[Training, HardAttention]:
    net = network()
    config = nogs.Train(nogs.Machine(Path("unused")), geometry=nogs.Geometry(8, 4, 3), **options)  # type: ignore[arg-type]
    images = noise(12)
    labels = torch.arange(12) % 4
    return Training(config, net, lambda _: greedy, None, images, labels), net


def test_random_sets_have_different_cells_of_every_size() -> None:
    """The loss is that of the answers before any glimpse and after a set that the generator draws again."""
    known, net = training(method="gain", gains=nogs.GainOptions(pretraining=0.5, pretraining_glimpses=7))
    images, sizes = torch.tensor([2, 5, 7]), set()
    for seed in range(80):
        found = random_set_loss(known, images, Generator().manual_seed(seed))
        generator = Generator().manual_seed(seed)
        m = 7 if torch.rand((), generator=generator) >= 0.5 else int(torch.randint(1, 8, (), generator=generator))
        cells = torch.rand(3, len(GRID), generator=generator).argsort(1)[:, :m]
        assert all(len(set(row)) == m for row in cells.tolist())
        sizes.add(m)
        rollout = net(known.pixels, images, glimpses=m, choose=lambda _, t, cells=cells: cells[:, t])
        first = net.classifier(net.begin(known.pixels, images).h)
        of = [logits.log_softmax(-1)[range(3), known.labels[images]] for logits in (first, rollout.class_logits[:, -1])]
        torch.testing.assert_close(found, -torch.stack(of).mean())
    assert sizes == set(range(1, 8))


def test_sets_are_at_most_all_cells() -> None:
    known, _ = training(method="gain", gains=nogs.GainOptions(pretraining=0.5, pretraining_glimpses=1000))
    for seed in range(5):
        assert random_set_loss(known, torch.tensor([0, 1]), Generator().manual_seed(seed)).isfinite()


@pytest.mark.parametrize("core", ["gru", "attention"])
def test_a_pretrained_gain_map_resumes_bit_for_bit(tmp_path: Path, core: str) -> None:
    source = nogs.Source(f"npz:{write_npz(tmp_path / 'images.npz')}")
    shape = nogs.Geometry(glimpse_size=GLIMPSE_PX, stride=STRIDE_PX, glimpses=T)

    def trained(name: str, *, stop_after: int | None = None, resume: bool = False, pretraining: float = 0.5) -> bytes:
        fit = nogs.Optimisation(iterations=20, batch_size=16, validate_every=5)
        machine = nogs.Machine(tmp_path / name, resume=resume, device="cpu")
        config = nogs.Train(
            machine,
            source,
            shape,
            fit,
            method="gain",
            network=nogs.AttentionNetwork(8, core=core),
            gains=nogs.GainOptions(pretraining=pretraining, pretraining_glimpses=5),
        )

        def tick(done: int, note: str) -> None:
            if done == stop_after:
                raise KeyboardInterrupt

        if stop_after:
            with pytest.raises(KeyboardInterrupt):
                nogs.train(config, tick)
            return b""
        nogs.train(config, silent)
        return (tmp_path / name / "model.safetensors").read_bytes()

    whole = trained("whole")
    for stop_after in (5, 15):
        trained(f"part{stop_after}", stop_after=stop_after)
        assert trained(f"part{stop_after}", resume=True) == whole
    assert trained("none", pretraining=0.0) != whole
    model = nogs.load_model(tmp_path / "whole")
    assert model.spec.core == core
    assert (model.network.begin(noise(1), torch.tensor([0])).memory is None) == (core == "gru")


def test_a_path_is_looked_along_by_either_core() -> None:
    net, images = network(), noise(2)
    looks = look_at_all(net, images, torch.arange(2), glimpses=3, choose=along((1, 5, 9)))
    assert looks.cells.tolist() == [[1, 5, 9]] * 2
    state = net.of_nothing(2, torch.device("cpu"))
    for t in range(3):
        patches = look(images, GRID, looks.cells[:, t : t + 1]).patches[:, 0]
        state = net.after(state, net.embedding(patches, looks.cells[:, t]), looks.cells[:, t])
    assert isinstance(state, State)
    torch.testing.assert_close(net.classifier(state.h), looks.class_logits[:, -1])
