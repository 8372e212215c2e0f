"""A step of partial supervision, against its terms taken one by one from plain rollouts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from given import following
from nogs.attention import train_step
from nogs.attention.choosers import Chooser, greedy, sampling
from nogs.attention.methods import METHODS, chooser
from nogs.attention.network import HardAttention, previous_states
from nogs.attention.objectives import entropy_loss, label_loss, reinforce_loss, supervised_loss
from nogs.attention.train_step import Training, corrected, draw_batch, label_only_step, reinforce_step
from nogs.config.groups import Geometry, Machine, Supervision
from nogs.config.stages import Train
from nogs.glimpses.fovea import look
from nogs.glimpses.grid import Grid
from nogs.sequences.table import Sequences

T, K = 2, 3
PATH = (8, 2)
FREE = torch.tensor([7, 2, 5, 0, 9])


def training(method: str, supervision: Supervision, entropy_bonus: float = 0.0) -> Training:
    torch.manual_seed(1)
    grid = Grid(image_px=9, glimpse_px=3, stride_px=3)
    chance = Generator().manual_seed(2)
    sequences = Sequences(torch.tensor([3, 8, 1, 4]), torch.randint(len(grid), (4, T), generator=chance))

    def choose(generator: Generator) -> Chooser:
        path = PATH if METHODS[method].looks == "path" else None
        return chooser(METHODS[method], grid, generator=generator, path=path, policy=sampling(generator))

    return Training(
        Train(
            machine=Machine(Path("nowhere")),
            geometry=Geometry(glimpses=T),
            supervision=supervision,
            supervised_batch=K,
            entropy_bonus=entropy_bonus,
        ),
        HardAttention(grid, channels=1, classes=2, hidden=8),
        choose,
        None if METHODS[method].sequences == "none" else sequences,
        torch.randint(0, 256, (10, 1, 9, 9), dtype=torch.uint8, generator=chance),
        torch.randint(2, (10,), generator=chance),
    )


def by_terms(known: Training, *, published: bool) -> Tensor:
    """The objective as method.md has it: each term averaged over the images that it speaks of."""
    chance, network, labels = Generator().manual_seed(5), known.network, known.labels
    free, sequences = FREE, known.sequences
    if sequences is None:
        rollout = network(known.pixels, free, glimpses=T, choose=sampling(chance))
        return (label_loss(rollout.class_logits, labels[free]) + reinforce_loss(rollout, labels[free])).mean()
    rows = torch.randint(len(sequences.images), (K,), generator=chance)
    free = free[K:] if published else free
    rollout = network(known.pixels, free, glimpses=T, choose=sampling(chance))
    taught = sequences.images[rows]
    led = network(known.pixels, taught, glimpses=T, choose=following(sequences.cells[rows], greedy))
    label_losses = label_loss(rollout.class_logits, labels[free])
    if published:
        label_losses = torch.cat((label_losses, label_loss(led.class_logits, labels[taught])))
    reinforced = reinforce_loss(rollout, labels[free])
    return label_losses.mean() + reinforced.mean() + supervised_loss(led).mean()


@pytest.mark.parametrize(
    ("method", "supervision"), [("ram", "location"), ("ps-nogs", "location"), ("ps-nogs", "published")]
)
def test_a_step_descends_the_sum_of_its_terms(method: str, supervision: Supervision) -> None:
    known = training(method, supervision)
    expected = by_terms(known, published=supervision == "published")
    got = reinforce_step(known, FREE, Generator().manual_seed(5))
    torch.testing.assert_close(got, expected)
    parameters = dict(known.network.named_parameters())
    gradients = (torch.autograd.grad(loss, list(parameters.values())) for loss in (got, expected))
    for name, ours, theirs in zip(parameters, *gradients, strict=True):
        assert theirs.any(), name
        torch.testing.assert_close(ours, theirs, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("method", "supervision"), [("ram", "location"), ("ps-nogs", "location"), ("ps-nogs", "published")]
)
def test_an_entropy_bonus_adds_to_the_location_heads_gradient_alone(method: str, supervision: Supervision) -> None:
    """The difference to no bonus is the weighted entropy loss of the images that are not supervised, by a rollout."""
    weight = 0.3
    known = training(method, supervision, entropy_bonus=weight)
    with_bonus, without = (
        reinforce_step(one, FREE, Generator().manual_seed(5)) for one in (known, training(method, supervision))
    )
    chance = Generator().manual_seed(5)
    free = FREE
    if known.sequences is not None:
        torch.randint(len(known.sequences.images), (K,), generator=chance)
        free = FREE[K:] if supervision == "published" else FREE
    rollout = known.network(known.pixels, free, glimpses=T, choose=sampling(chance))
    logits = known.network.locator(previous_states(rollout.states, torch.zeros_like(rollout.states[:, 0])))
    expected = weight * entropy_loss(rollout.log_policy, logits).mean()
    torch.testing.assert_close(with_bonus - without, expected)
    names, parameters = zip(*known.network.named_parameters(), strict=True)
    plain = by_terms(known, published=supervision == "published")
    found, base, bonus = (
        torch.autograd.grad(loss, parameters, allow_unused=True) for loss in (with_bonus, plain, expected)
    )
    for name, total, part, extra in zip(names, found, base, bonus, strict=True):
        assert (extra is not None) == name.startswith("locator"), name
        torch.testing.assert_close(total, part if extra is None else part + extra, msg=lambda m, n=name: f"{n}: {m}")


def test_a_step_along_a_path_descends_the_label_loss_of_every_image() -> None:
    """Without policy: the mean cross-entropy after glimpses at PATH, on the images of the batch, and nothing else."""
    known = training("path", "location")
    network, labels = known.network, known.labels
    seen = look(known.pixels, network.grid, torch.tensor(PATH).expand(len(FREE), -1), FREE)
    states = network.encode(seen, network.begin(known.pixels, FREE))
    logits = network.classifier(states).log_softmax(-1)
    expected = -sum(logits[row, :, labels[image]].mean() for row, image in enumerate(FREE.tolist())) / len(FREE)
    got = label_only_step(known, FREE, Generator().manual_seed(5))
    torch.testing.assert_close(got, expected)
    gradients = torch.autograd.grad(got, list(network.parameters()), allow_unused=True)
    moved = {
        name.split(".")[0]
        for (name, _), gradient in zip(network.named_parameters(), gradients, strict=True)
        if gradient is not None and gradient.any()
    }
    assert moved == {"embedding", "core", "classifier"}


def test_dataset_aggregation_that_always_corrects_follows_the_given_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of cells that do not show each other, each is the right one in turn: then it is supervision as published."""
    monkeypatch.setattr(train_step, "CORRECTED", 1.0)
    sequences = Sequences(torch.tensor([3, 8, 1, 4]), torch.tensor([[0, 4], [8, 1], [2, 5], [7, 3]]))
    known = training("ps-nogs", "dagger")._replace(sequences=sequences)
    chance = Generator().manual_seed(5)
    rows = torch.randint(4, (K,), generator=chance)
    taught, given = sequences.images[rows], sequences.cells[rows]
    led = corrected(known.network, known.pixels, taught, given, chance)
    expected = known.network(known.pixels, taught, glimpses=T, choose=following(given, greedy))
    for ours, theirs in zip(led, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    published = training("ps-nogs", "published")._replace(sequences=sequences, network=known.network)
    # The uniform numbers that decide on corrections come after the free images', so both draw the same batch.
    torch.testing.assert_close(
        reinforce_step(known, FREE, Generator().manual_seed(5)),
        reinforce_step(published, FREE, Generator().manual_seed(5)),
    )


def test_dataset_aggregation_teaches_the_first_cell_that_its_own_glimpses_have_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Never corrected, an image looks where it would anyway; what it is taught is found by hand, glimpse by glimpse."""
    monkeypatch.setattr(train_step, "CORRECTED", 0.0)
    torch.manual_seed(4)
    grid, steps = Grid(image_px=12, glimpse_px=6, stride_px=2), 3
    network = HardAttention(grid, channels=1, classes=2, hidden=8)
    pixels = torch.randint(0, 256, (10, 1, 12, 12), dtype=torch.uint8)
    images = torch.tensor([7, 2, 5, 0, 9, 1])
    own = network(pixels, images, glimpses=steps, choose=greedy)
    given = torch.randint(len(grid), (len(images), steps))
    given[0] = own.cells[0]  # shown one after another
    given[1] = own.cells[1, 0]  # shown by the first glimpse: then nothing is taught
    led = corrected(network, pixels, images, given, Generator().manual_seed(5))
    torch.testing.assert_close(led.cells, own.cells)
    torch.testing.assert_close(led.class_logits, own.class_logits)
    logits = network.logits_along(own.cells, own.states, network.begin(pixels, images)).log_softmax(-1)
    kinds = set()
    for b, cells in enumerate(given.tolist()):
        shown: set[int] = set()
        for t in range(steps):
            left = [cell for cell in cells if cell not in shown]
            expected = logits[b, t, left[0]] if left else torch.zeros(())
            torch.testing.assert_close(led.log_policy[b, t], expected)
            kinds.add("nothing" if not left else "first" if left[0] == cells[0] else "later")
            top, column = (int(v) for v in grid.top_left_px(own.cells[b, t]))
            for cell in cells:
                row, col = (int(v) + 3 for v in grid.top_left_px(torch.tensor(cell)))
                if top <= row < top + 6 and column <= col < column + 6:
                    shown.add(cell)
    assert kinds == {"nothing", "first", "later"}
    assert not led.log_policy[1, 1:].any()


@pytest.mark.parametrize("supervision", ["published", "dagger"])
def test_images_with_given_cells_take_places_of_the_batch(supervision: Supervision) -> None:
    batch = draw_batch(training("ps-nogs", supervision), FREE, Generator().manual_seed(5))
    assert len(batch.images) == len(FREE)
    assert batch.supervised.sum() == K
    assert batch.supervised_labels
