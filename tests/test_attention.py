"""The hard attention network: its contract, what it may see, and how cells are chosen."""

from __future__ import annotations

import io
import itertools
import time

import pytest
import torch
from torch import Generator, Tensor

from given import following
from nogs.attention.choosers import Chooser, greedy, sampling
from nogs.attention.classify import classify
from nogs.attention.network import HardAttention, Rollout
from nogs.attention.objectives import label_loss, partially_supervised_loss, reinforce_loss, supervised_loss
from nogs.glimpses.fovea import look
from nogs.glimpses.grid import Grid
from nogs.stopping.heads import StoppingHeads, stop_by_predicted_gain
from nogs.stopping.rules import Stop, never, stop_below

IMAGE_PX, T, CLASSES = 24, 3, 4
NETWORKS = list(itertools.product((3, 6, 8, 16), (1, 3), (1, 2)))
"""(glimpse size, channels, scales)"""


def make(size: int = 6, channels: int = 1, scales: int = 1, *, seed: int = 0) -> HardAttention:
    torch.manual_seed(seed)
    grid = Grid(image_px=IMAGE_PX, glimpse_px=size, stride_px=6, scales=scales)
    return HardAttention(grid, channels=channels, classes=CLASSES, hidden=8)


def noise(count: int, channels: int = 1, *, seed: int = 0) -> Tensor:
    shape = (count, channels, IMAGE_PX, IMAGE_PX)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=Generator().manual_seed(seed))


def given_cells(network: HardAttention, count: int, *, seed: int = 0) -> Tensor:
    return torch.randint(len(network.grid), (count, T), generator=Generator().manual_seed(seed))


def assert_close(got: Rollout, expected: Rollout) -> None:
    for field, value in got._asdict().items():
        torch.testing.assert_close(
            value, getattr(expected, field), rtol=1e-4, atol=1e-5, msg=lambda m, f=field: f"{f}: {m}"
        )


def location_logits(network: HardAttention, images: Tensor, glimpses: int, choose: Chooser = greedy) -> Tensor:
    """By which every cell was chosen: images, glimpses, cells."""
    steps = network.unroll(images, torch.arange(len(images)), glimpses=glimpses, choose=choose)
    return torch.stack([step.location_logits for step in steps], dim=1)


def row(rollout: Rollout, index: int) -> Rollout:
    return Rollout(*(column[index : index + 1] for column in rollout))


@pytest.mark.parametrize(("size", "channels", "scales"), NETWORKS)
def test_shapes_and_gradient_to_every_parameter(size: int, channels: int, scales: int) -> None:
    network, images = make(size, channels, scales), noise(8, channels)
    cells = given_cells(network, 8)
    cells[4:] = -1
    rollout = network(images, glimpses=T, choose=following(cells, sampling(Generator().manual_seed(0))))
    assert rollout.cells.shape == rollout.log_policy.shape == rollout.baselines.shape == (8, T)
    assert location_logits(network, images, T).shape == (8, T, len(network.grid))
    assert rollout.class_logits.shape == (8, T, CLASSES)
    labels = torch.arange(8) % CLASSES
    partially_supervised_loss(rollout, labels, cells[:, 0] >= 0, supervised_labels=True).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("size", "channels", "scales"), NETWORKS)
def test_an_image_does_not_depend_on_its_batch(size: int, channels: int, scales: int) -> None:
    network, images = make(size, channels, scales).eval(), noise(6, channels)
    cells = given_cells(network, 6)
    together = network(images, glimpses=T, choose=following(cells, greedy))
    freely = network(images, glimpses=T, choose=greedy)
    for index in range(6):
        image = images[index : index + 1]
        alone = network(image, glimpses=T, choose=following(cells[index : index + 1], greedy))
        assert_close(row(together, index), alone)
        assert_close(row(freely, index), network(image, glimpses=T, choose=greedy))


@pytest.mark.parametrize(("size", "channels", "scales"), [(3, 1, 1), (8, 3, 2)])
def test_deterministic_and_the_same_after_save_and_load(size: int, channels: int, scales: int) -> None:
    network, images = make(size, channels, scales).eval(), noise(5, channels)
    once = network(images, glimpses=T, choose=greedy)
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other = make(size, channels, scales, seed=1).eval()
    assert not torch.equal(other(images, glimpses=T, choose=greedy).class_logits, once.class_logits)
    other.load_state_dict(torch.load(file))
    for again in (network, other):
        for got, expected in zip(again(images, glimpses=T, choose=greedy), once, strict=True):
            assert torch.equal(got, expected)


@pytest.mark.parametrize(("size", "channels", "scales"), [(3, 1, 1), (8, 3, 2), (16, 3, 1)])
def test_known_glimpses_are_remembered_as_if_looked_at_one_by_one(size: int, channels: int, scales: int) -> None:
    """Their gradients are equal too, and so are the answers without gradients."""
    network, images = make(size, channels, scales), noise(20, channels)
    cells = given_cells(network, 20)
    led = network(images, glimpses=T, choose=following(cells, greedy))
    begin = network.begin(images, torch.arange(len(images)))
    known = network.rollout(cells, network.encode(look(images, network.grid, cells), begin), begin)
    assert_close(known, led)
    with torch.no_grad():
        assert_close(network(images, glimpses=T, choose=following(cells, greedy)), led)
    parameters = list(network.parameters())
    one, other = (
        torch.autograd.grad(sum(column.square().mean() for column in rollout[1:]), parameters)
        for rollout in (led, known)
    )
    for ours, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_same_chance_gives_the_same_rollout() -> None:
    network, images = make().eval(), noise(64)
    cells = [network(images, glimpses=T, choose=sampling(Generator().manual_seed(seed))).cells for seed in (7, 7, 8)]
    assert torch.equal(cells[0], cells[1])
    assert not torch.equal(cells[0], cells[2])


def gradients(network: HardAttention, loss: Tensor) -> dict[str, float]:
    """Size of the gradient in each part of the network; 0 means exactly none."""
    network.zero_grad(set_to_none=True)
    loss.backward()
    sizes: dict[str, float] = {}
    for name, parameter in network.named_parameters():
        part = name.split(".")[0]
        size = 0.0 if parameter.grad is None else parameter.grad.abs().sum().item()
        sizes[part] = sizes.get(part, 0.0) + size
    return sizes


def test_where_to_look_never_steers_what_is_remembered() -> None:
    network, images, labels = make(), noise(8), torch.arange(8) % CLASSES
    sampled = sampling(Generator().manual_seed(0))
    free = network(images, glimpses=T, choose=sampled)
    policy = reinforce_loss(free, labels).sum()
    led = network(images, glimpses=T, choose=following(given_cells(network, 8), greedy))
    taught = supervised_loss(led).sum()
    for loss, moved in ((policy, {"locator", "baseline"}), (taught, {"locator"})):
        sizes = gradients(network, loss)
        assert {part for part, size in sizes.items() if size > 0} == moved
    label = label_loss(network(images, glimpses=T, choose=sampled).class_logits, labels).sum()
    sizes = gradients(network, label)
    assert {part for part, size in sizes.items() if size > 0} == {"embedding", "core", "classifier"}


def test_the_last_answer_teaches_the_first_look() -> None:
    network, looks = make(), list[Tensor]()
    network.embedding.register_forward_hook(lambda module, inputs, output: looks.append(output))
    outputs = network(noise(8), glimpses=T, choose=following(given_cells(network, 8), greedy)).class_logits
    for t, seen in enumerate(looks):
        (last,) = torch.autograd.grad(outputs[:, -1].square().sum(), seen, retain_graph=True)
        assert (last.abs().sum(1) > 0).all(), t
        before = torch.autograd.grad(outputs[:, :t].sum(), seen, retain_graph=True, allow_unused=True)
        assert before == (None,) or not before[0].any(), t


@pytest.mark.parametrize("size", [3, 6, 8, 16])
def test_the_posterior_depends_on_its_glimpses_alone(size: int) -> None:
    network, images, others = make(size).eval(), noise(1), noise(1, seed=1)
    offsets = [*range(0, IMAGE_PX - size + 1, 6)]
    offsets += [IMAGE_PX - size] if offsets[-1] != IMAGE_PX - size else []
    cells = [1, len(offsets) + 1]  # (row 0, column 1), then (row 1, column 1)
    squares = [(0, offsets[1]), (offsets[1], offsets[1])]
    choose = following(torch.tensor([cells]), greedy)
    outputs = network(images, glimpses=2, choose=choose)
    assert outputs.cells.tolist() == [cells]
    outside = others.clone()
    for top, left in squares:
        outside[..., top : top + size, left : left + size] = images[..., top : top + size, left : left + size]
    assert not torch.equal(outside, images)
    for got, expected in zip(network(outside, glimpses=2, choose=choose), outputs, strict=True):
        assert torch.equal(got, expected)
    top, left = squares[1]
    inside = images.clone()
    inside[..., top : top + size, left : left + size] = others[..., top : top + size, left : left + size]
    after = network(inside, glimpses=2, choose=choose)
    if size <= top:  # else the squares overlap
        assert torch.equal(after.class_logits[:, 0], outputs.class_logits[:, 0])
        assert torch.equal(location_logits(network, inside, 2, choose), location_logits(network, images, 2, choose))
    assert not torch.equal(after.class_logits[:, 1], outputs.class_logits[:, 1])


def test_the_first_location_is_chosen_blindly_and_the_rest_from_what_was_seen() -> None:
    network = make().eval()
    choose = following(torch.full((5, T), 2), greedy)
    rollout, logits = network(noise(5), glimpses=T, choose=choose), location_logits(network, noise(5), T, choose)
    assert torch.equal(logits[:, 0], logits[:1, 0].expand(5, -1))
    assert torch.equal(rollout.baselines[:, 0], rollout.baselines[:1, 0].expand(5))
    assert len(logits[:, 1].unique(dim=0)) == 5


def test_more_glimpses_change_nothing_before_them() -> None:
    network, images = make().eval(), noise(5)
    long, short = (network(images, glimpses=t, choose=greedy) for t in (T, T - 1))
    assert_close(Rollout(*(column[:, : T - 1] for column in long)), short)


def test_greedy_looks_at_the_likeliest_cell() -> None:
    assert greedy(torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 1.9]]), 0).tolist() == [1, 0]


def test_sampling_draws_from_the_policy() -> None:
    """Chi-square goodness of fit, p < 1e-6 fails: a false-alarm rate of 1e-6 for each of the two policies."""
    n, generator = 200_000, Generator().manual_seed(0)
    probs = torch.tensor([[0.4, 0.25, 0.15, 0.1, 0.03, 0.015, 0.005, 0.03, 0.02], [1 / 9] * 9], dtype=torch.float64)
    logits = (probs.log() + torch.tensor([[5.0], [-3.0]])).float()  # a constant says nothing
    drawn = sampling(generator)(logits.repeat_interleave(n, 0), 0).unflatten(0, (2, n))
    for cells, p in zip(drawn, probs, strict=True):
        counts = cells.bincount(minlength=9).double()
        statistic = ((counts - n * p).square() / (n * p)).sum()
        p_value = torch.special.gammaincc(torch.tensor(4.0, dtype=torch.float64), statistic / 2)
        assert p_value > 1e-6


def test_sampling_keeps_the_draws_of_images_and_steps_apart() -> None:
    """Successive draws and neighbouring rows are independent: 4 cells, false-alarm rate 1e-6 each."""
    n, choose = 100_000, sampling(Generator().manual_seed(1))
    first, second = (choose(torch.zeros(n, 4), t) for t in range(2))
    for a, b in ((first, second), (first[:-1:2], first[1::2])):
        pairs = (a * 4 + b).bincount(minlength=16).double()
        expected = len(a) / 16
        statistic = ((pairs - expected).square() / expected).sum()
        p_value = torch.special.gammaincc(torch.tensor(7.5, dtype=torch.float64), statistic / 2)
        assert p_value > 1e-6


def test_sampling_never_draws_what_the_policy_rules_out() -> None:
    logits = torch.tensor([0.0, -torch.inf, -200.0, 1.0]).expand(50_000, -1)
    assert set(sampling(Generator().manual_seed(0))(logits, 0).tolist()) == {0, 3}


def test_following_takes_given_cells_and_chooses_the_others() -> None:
    steps: list[int] = []

    def otherwise(logits: Tensor, t: int) -> Tensor:
        steps.append(t)
        return logits.argmin(-1)

    choose = following(torch.tensor([[2, 0], [-1, 1], [0, -1]]), otherwise)
    logits = torch.tensor([[0.0, -1.0, 5.0], [7.0, 1.0, 0.0], [3.0, 2.0, 9.0]])
    assert choose(logits, 0).tolist() == [2, 2, 0]
    assert choose(logits, 1).tolist() == [0, 1, 1]
    assert steps == [0, 1]


def test_the_supervised_rows_do_not_change_what_the_others_draw() -> None:
    network, images = make().eval(), noise(6)
    cells = torch.full((6, T), -1)
    free = network(images, glimpses=T, choose=following(cells, sampling(Generator().manual_seed(3))))
    cells[4:] = 5
    mixed = network(images, glimpses=T, choose=following(cells, sampling(Generator().manual_seed(3))))
    assert torch.equal(mixed.cells[:4], free.cells[:4])
    assert (mixed.cells[4:] == 5).all()


def test_stopping_heads_read_and_never_steer() -> None:
    network = make()
    heads = StoppingHeads(glimpses=T, costs=2)
    rollout = network(noise(5), glimpses=T, choose=greedy)
    outputs = heads(rollout.class_logits)
    assert outputs.entropy_gain.shape == outputs.accuracy_gain.shape == (5, T - 1)
    assert outputs.act_logits.shape == outputs.stop_logits.shape == (5, T, 2)
    sum(column.square().sum() for column in outputs).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in heads.parameters())
    assert all(parameter.grad is None for parameter in network.parameters())
    # T = 3. Two layers, (3 x 3) x 32 and 32 x 2, counted by hand.
    assert heads.macs == 352


def test_leaving_the_batch_is_stopping_on_the_record() -> None:
    """Early exit gives what post-processing says, and embeds as many glimpses as images took steps."""
    network, images = make().eval(), noise(64)
    torch.manual_seed(1)
    heads = StoppingHeads(glimpses=T, costs=2)
    with torch.inference_mode():
        # t is not read, and every glimpse to come brings as much: images alone decide.
        first, last = heads.entropy_gain[0], heads.entropy_gain[2]
        first.weight.unflatten(1, (T, 3))[:] = first.weight.unflatten(1, (T, 3))[:, :1]
        for rows in (last.weight, last.bias):
            rows[1] = 2 * rows[0]
        # Images differ in their answers, as in a network that has learned.
        network.embedding.what[-1].weight.mul_(300)
        states = network(images, glimpses=T, choose=greedy).states.flatten(0, 1)
        network.classifier.weight.mul_(3 / states.std(0))
        network.classifier.bias.copy_(-network.classifier.weight @ states.mean(0))
        rollout = network(images, glimpses=T, choose=greedy)
        gains = heads(rollout.class_logits).entropy_gain
        threshold = gains.median().item() + 1e-6  # no gain lies on it
        steps = stop_below(gains, threshold)
        assert set(steps.tolist()) == {1, 2, 3}
        looks: list[int] = []
        network.embedding.register_forward_hook(lambda module, inputs, output: looks.append(len(output)))
        stop = stop_by_predicted_gain(heads, threshold)
        answers = classify(network, images, glimpses=T, choose=greedy, stop=stop)
    assert torch.equal(answers.steps, steps)
    assert sum(looks) == steps.sum()
    torch.testing.assert_close(answers.class_logits, rollout.class_logits[torch.arange(64), steps - 1])
    taken = torch.arange(1, T + 1) <= steps[:, None]
    assert torch.equal(answers.cells, torch.where(taken, rollout.cells, -1))
    never_stopped = classify(network, images, glimpses=T, choose=greedy, stop=never)
    assert torch.equal(never_stopped.class_logits, rollout.class_logits[:, -1])


def test_stopping_early_saves_time() -> None:
    """A mean of 2 of 8 glimpses: four times less to do, of which a clock on a busy machine must see some."""
    network, images = make(16, 3).eval(), noise(256, 3)

    def at_two(class_logits: Tensor, t: int, location_logits: Tensor) -> Tensor:
        return torch.full((len(class_logits),), t == 2)

    def seconds(stop: Stop) -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            classify(network, images, glimpses=8, choose=greedy, stop=stop)
        return time.perf_counter() - started

    seconds(never)
    assert min(seconds(never) for _ in range(5)) > 1.5 * min(seconds(at_two) for _ in range(5))
