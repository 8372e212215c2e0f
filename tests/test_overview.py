"""The overview as glimpse 0, and the location head that convolves over it."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from nogs.attention.choosers import greedy, sampling
from nogs.attention.classify import classify, look_at_all
from nogs.attention.network import HardAttention, stack_states
from nogs.attention.overview import FLAT_PX, LocationMap, Overview, Scene, cells_of_detail
from nogs.data.pixels import overview
from nogs.errors import UserError
from nogs.glimpses.fovea import look
from nogs.glimpses.grid import Grid
from nogs.specs import HardAttentionSpec
from nogs.stopping.rules import never

T = 3


def network(grid: Grid, overview_px: int = 6) -> HardAttention:
    torch.manual_seed(0)
    return HardAttention(grid, channels=1, classes=4, hidden=8, overview_px=overview_px).eval()


def noise(count: int, side: int) -> Tensor:
    return torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8, generator=Generator().manual_seed(0))


@pytest.mark.parametrize(("image_px", "glimpse_px", "stride_px", "px"), [(24, 8, 4, 6), (25, 7, 3, 8), (10, 4, 5, 10)])
def test_glimpsed_pixels_are_those_whose_centres_lie_in_the_glimpse(
    image_px: int, glimpse_px: int, stride_px: int, px: int
) -> None:
    grid = Grid(image_px, glimpse_px, stride_px)
    read = Overview(grid, px, channels=1, width=8)
    for cell, mask in enumerate(read.glimpsed(torch.arange(len(grid)))):
        top, left = grid.top_left_px(torch.tensor(cell)).tolist()
        for i in range(px):
            for j in range(px):
                row, column = ((k + 0.5) * image_px / px for k in (i, j))
                inside = top <= row < top + glimpse_px and left <= column < left + glimpse_px
                assert mask[i, j] == inside


def test_the_heads_along_given_cells_are_those_of_the_rollout_itself() -> None:
    """Both the location logits of every step, and all outputs of the rollout."""
    net, images = network(Grid(24, 8, 4)), noise(5, 24)
    rows, choose = torch.arange(5), sampling(Generator().manual_seed(1))
    begin = net.begin(images, rows)
    steps = list(net.unroll(images, rows, begin=begin, glimpses=T, choose=choose))
    cells, states = stack_states(steps)
    assert len(set(map(tuple, cells.tolist()))) > 1
    along = net.logits_along(cells, net.encode(look(images, net.grid, cells), begin), begin)
    torch.testing.assert_close(along, torch.stack([step.location_logits for step in steps], dim=1))
    whole = net(images, glimpses=T, choose=sampling(Generator().manual_seed(1)))
    for found, expected in zip(net.rollout(cells, states, begin), whole, strict=True):
        torch.testing.assert_close(found, expected)


def test_logits_are_those_of_one_network_over_features_what_was_seen_places_and_state() -> None:
    """What does not change during a rollout is computed once; here all of it is, at every step, without a broadcast."""
    net, images = network(Grid(24, 8, 4)), noise(5, 24)
    head = net.locator
    assert isinstance(head, LocationMap)
    assert net.overview
    begin = net.begin(images, torch.arange(5))
    assert begin.scene
    cells = torch.randint(len(net.grid), (5, T), generator=Generator().manual_seed(3))
    states = net.encode(look(images, net.grid, cells), begin)
    _, features = net.overview(overview(images, torch.arange(5), 6))
    along = net.logits_along(cells, states, begin)
    for b in range(5):
        for t in range(T):
            seen = sum(net.overview.glimpsed(cells[b, :t]), torch.zeros(6, 6)).clamp_max(1)
            h = states[b, t - 1] if t else begin.h[b]
            mixed = features[b] + head.seen(torch.cat((seen[None], head.places))) + head.state(h)[:, None, None]
            expected = head.out(mixed.relu()[None])
            points = head.centres.view(1, 5, 5, 2)
            logits = torch.nn.functional.grid_sample(expected, points, padding_mode="border", align_corners=False)
            torch.testing.assert_close(along[b, t], logits.flatten())


def test_what_was_seen_changes_where_to_look() -> None:
    head = LocationMap(Grid(24, 8, 4), 6, hidden=8)
    features, h = torch.randn(1, 16, 6, 6), torch.randn(1, 8)
    seen = torch.zeros(1, 6, 6)
    before = head(h, Scene(features, seen))
    seen[0, :2, :2] = 1
    after = head(h, Scene(features, seen))
    changed = (before - after)[0].abs().view(5, 5) > 1e-6
    assert changed[0, 0]
    assert not changed[-1, -1]


def test_parameters_do_not_grow_with_the_number_of_locations() -> None:
    few, many = (network(Grid(48, 8, stride)) for stride in (16, 8))
    assert len(many.grid) > len(few.grid)
    count = [sum(p.numel() for p in net.parameters()) for net in (few, many)]
    assert count[0] == count[1]


def test_a_finer_grid_than_the_overview_gets_a_finer_map() -> None:
    """Neighbouring cells within one pixel of the overview can have logits that interpolation would not give."""
    grid = Grid(24, 8, 1)
    head = LocationMap(grid, 6, hidden=8)
    assert head.finer == 3
    logits = head(torch.randn(1, 8), Scene(torch.randn(1, 16, 6, 6), torch.zeros(1, 6, 6)))
    assert logits.shape == (1, len(grid))


def test_an_image_gets_its_answer_whatever_is_beside_it_and_with_early_stopping_too() -> None:
    net, images = network(Grid(24, 8, 4)), noise(6, 24)
    with torch.inference_mode():
        together = look_at_all(net, images, torch.arange(6), glimpses=T, choose=greedy)
        for row in range(6):
            alone = look_at_all(net, images, torch.tensor([row]), glimpses=T, choose=greedy)
            assert torch.equal(alone.cells[0], together.cells[row])
            torch.testing.assert_close(alone.class_logits[0], together.class_logits[row])
        answers = classify(net, images, glimpses=T, choose=greedy, stop=never)
        torch.testing.assert_close(answers.class_logits, together.class_logits[:, -1])

        def odd_after_first(class_logits: Tensor, t: int, location_logits: Tensor) -> Tensor:
            return torch.arange(len(class_logits)) % 2 == 1 if t == 1 else torch.zeros(len(class_logits)).bool()

        some = classify(net, images, glimpses=T, choose=greedy, stop=odd_after_first)
        assert some.steps.tolist() == [T, 1] * 3
        torch.testing.assert_close(some.class_logits[::2], together.class_logits[::2, -1])
        torch.testing.assert_close(some.class_logits[1::2], together.class_logits[1::2, 0])


def test_every_parameter_is_reached_and_the_location_head_teaches_nothing_else() -> None:
    net, images = network(Grid(24, 8, 4)), noise(6, 24)
    rollout = net(images, glimpses=T, choose=sampling(Generator().manual_seed(2)))
    (-rollout.log_policy.sum()).backward(retain_graph=True)
    reached = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {name.split(".")[0] for name in reached} == {"locator", "overview"}
    assert not [name for name in reached if name.startswith("overview.embedding")]
    (rollout.class_logits.square().sum() + rollout.baselines.sum()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name


def test_a_spec_checks_the_overview() -> None:
    spec = HardAttentionSpec(Grid(24, 8, 4), 1, ("a", "b"), 8, 2, "ram", overview_px=6)
    assert spec.build().overview is not None
    with pytest.raises(UserError, match="overview=25 exceeds image_px=24"):
        HardAttentionSpec(Grid(24, 8, 4), 1, ("a", "b"), 8, 2, "ram", overview_px=25)


def test_cells_of_detail_are_drawn_by_the_square_of_the_deviation_from_the_mean() -> None:
    """Two pixels of 100 and 50 among 14 of 0: counts of 20,000 draws within five standard deviations."""
    grid, overview = Grid(16, 4, 1), torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    overview[0, 0, 0, 3], overview[0, 0, 2, 1] = 100, 50
    deviations = [(value - 150 / 16) ** 2 for value in (100, 50, *(0,) * 14)]
    cells = cells_of_detail(grid, overview, 20_000, Generator().manual_seed(0))
    # The glimpse of a pixel of the overview are its 4 x 4 pixels, whose first is (4 row, 4 column).
    for pixel, deviation in (((0, 3), deviations[0]), ((2, 1), deviations[1]), ((3, 3), deviations[2])):
        cell = 4 * pixel[0] * grid.side + 4 * pixel[1]
        share = deviation / sum(deviations)
        found = (cells == cell).float().mean().item()
        assert found == pytest.approx(share, abs=5 * (share * (1 - share) / 20_000) ** 0.5)
    flat = cells_of_detail(grid, torch.full((1, 1, 4, 4), 7, dtype=torch.uint8), 20_000, Generator().manual_seed(0))
    shares = torch.bincount(flat[0], minlength=len(grid)) / 20_000
    drawn = shares[shares > 0]
    assert len(drawn) == 16
    torch.testing.assert_close(drawn, torch.full((16,), 1 / 16), rtol=0, atol=5 * (15 / 16**2 / 20_000) ** 0.5)


def test_the_core_reads_a_large_overview_through_few_weights() -> None:
    """A linear layer on its pixels would learn a thousand labels by heart."""
    for side, fewest, most in ((FLAT_PX, 500_000, 700_000), (FLAT_PX + 1, 0, 40_000), (150, 0, 40_000)):
        overview = Overview(Grid(300, 40, 20), side, channels=1, width=64)
        assert fewest < sum(p.numel() for p in overview.embedding.parameters()) < most
        embedded, _ = overview(noise(2, side))
        assert embedded.shape == (2, 64)
        embedded.sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in overview.embedding.parameters())
