"""ACT trained jointly: its loss against plain loops and an enumerated world, and what trainings learn."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

import nogs
from given import following
from nogs.attention.act import act, act_step
from nogs.attention.choosers import Chooser, along, greedy, sampling
from nogs.attention.classify import look_at_all
from nogs.attention.network import HardAttention, previous_states
from nogs.attention.train_step import Training
from nogs.config.groups import Geometry, Machine, Supervision
from nogs.config.stages import Train
from nogs.errors import UserError
from nogs.glimpses.grid import Grid
from nogs.runs.device import chance
from nogs.sequences.table import Sequences
from nogs.specs import HardAttentionSpec
from nogs.stopping.halting import HaltingUnit, answers
from nogs.weights import load_halting, load_network
from staged import Stages, run_of, silent
from tiny import CLASSES as CLASS_NAMES
from tiny import write_npz

T, CLASSES, COST = 2, 3, 0.05
FOUR = Grid(image_px=6, glimpse_px=3, stride_px=3)
IMAGES, FREE = 8, torch.tensor([7, 2, 5, 0])


def plain(halting: list[float], probs: list[list[float]]) -> tuple[list[float], int, float]:
    """(Σ_t p_t q_t, N, N + R) of one image, from Graves' equations 5 to 13."""
    total, mean, T = 0.0, [0.0] * len(probs[0]), len(probs)
    for t in range(T):
        if t == T - 1 or total + halting[t] >= 0.99:
            mean = [m + (1 - total) * q for m, q in zip(mean, probs[t], strict=True)]
            return mean, t + 1, t + 1 + 1 - total
        mean = [m + halting[t] * q for m, q in zip(mean, probs[t], strict=True)]
        total += halting[t]
    raise AssertionError


def test_answers_for_every_limit_by_plain_loops() -> None:
    draws = Generator().manual_seed(0)
    halting = torch.rand(6, 4, generator=draws)
    halting[0] = torch.tensor([0.995, 0.1, 0.1, 0.1])
    class_logits = torch.randn(6, 4, 3, generator=draws)
    found = answers(halting, class_logits)
    for image, t in itertools.product(range(6), range(1, 5)):
        mean, steps, _ = plain(halting[image, :t].tolist(), class_logits[image, :t].softmax(-1).tolist())
        torch.testing.assert_close(found.log_probs[image, t - 1].exp(), torch.tensor(mean))
        if t == 4:
            assert found.steps[image] == steps
    assert found.steps[0] == 1


def training(
    supervision: Supervision = "location", *, sequences: bool = False, choose: Chooser | None = None, **how: Any
) -> tuple[Training, HaltingUnit]:
    """A network whose answers and halting differ between images, and its unit."""
    torch.manual_seed(2)
    draws = Generator().manual_seed(5)
    network = HardAttention(FOUR, channels=1, classes=CLASSES, hidden=6)
    config = Train(
        Machine(Path("nowhere")),
        geometry=Geometry(glimpses=T),
        supervision=supervision,
        supervised_batch=2,
        **{"halting_cost": COST, **how},
    )
    known = Training(
        config,
        network,
        sampling if choose is None else lambda generator: choose,
        Sequences(torch.tensor([3, 6, 1]), torch.tensor([[0, 2], [1, 1], [3, 2]])) if sequences else None,
        torch.randint(0, 256, (IMAGES, 1, 6, 6), dtype=torch.uint8, generator=draws),
        torch.randint(CLASSES, (IMAGES,), generator=draws),
    )
    unit = act(known).halting
    assert unit is not None
    with torch.no_grad():
        network.locator[0].weight.mul_(6)
        network.locator[2].weight.mul_(4)
        states = network(known.pixels, glimpses=T, choose=greedy).states[:, 0]
        network.classifier.weight.mul_(8)
        network.classifier.bias.sub_(network.classifier(states).mean(0))
        unit.linear.weight.div_((states @ unit.linear.weight[0]).std())
        unit.linear.bias.fill_(math.log(99) - (states @ unit.linear.weight[0]).mean())  # σ(log 99) = 0.99
    return known, unit


def by_terms(known: Training, unit: HaltingUnit, *, published: bool) -> Tensor:
    """Each term of each image by a plain loop, along the cells that the step draws."""
    draws, network = Generator().manual_seed(5), known.network
    taught, given = torch.empty(0, dtype=torch.long), torch.empty(0, T, dtype=torch.long)
    if known.sequences is not None:
        rows = torch.randint(len(known.sequences.images), (2,), generator=draws)
        taught, given = known.sequences.images[rows], known.sequences.cells[rows]
    free = FREE[len(taught) :] if published else FREE
    own = network(known.pixels, free, glimpses=T, choose=sampling(draws))
    led = network(known.pixels, taught, glimpses=T, choose=following(given, greedy)) if len(taught) else None
    label, policy, supervised = [], [], []
    for rollout, images in ((own, free), *(((led, taught),) if led is not None else ())):
        halting = unit(rollout.states)
        for row, image in enumerate(images.tolist()):
            target = known.labels[image]
            q, h = rollout.class_logits[row].softmax(-1), halting[row]
            stops = h[0].item() >= 0.99
            mean = q[0] if stops else h[0] * q[0] + (1 - h[0]) * q[1]
            ponder = torch.tensor(2.0) if stops else 2 + 1 - h[0]
            if rollout is own or published:
                label.append(-mean[target].log() + COST * ponder)
            if rollout is own:
                advantage = float(mean.argmax() == target) - rollout.baselines[row]
                policy.append(-(rollout.log_policy[row] * advantage.detach()).sum() + advantage.square().mean())
            else:
                supervised.append(-rollout.log_policy[row].sum())
    return sum(torch.stack(terms).mean() for terms in (label, policy, supervised) if terms)  # type: ignore[return-value]


@pytest.mark.parametrize(("sequences", "supervision"), [(False, "location"), (True, "location"), (True, "published")])
def test_a_step_descends_the_sum_of_its_terms(sequences: bool, supervision: Supervision) -> None:
    known, unit = training(supervision, sequences=sequences)
    expected = by_terms(known, unit, published=supervision == "published")
    got = act_step(known, unit, FREE, Generator().manual_seed(5))
    torch.testing.assert_close(got, expected)
    named = {**dict(known.network.named_parameters()), **dict(unit.named_parameters())}
    gradients = (torch.autograd.grad(loss, list(named.values())) for loss in (got, expected))
    for name, ours, theirs in zip(named, *gradients, strict=True):
        assert theirs.any(), name
        torch.testing.assert_close(ours, theirs, msg=lambda m, n=name: f"{n}: {m}")


def test_some_images_of_these_tests_stop_early_and_some_do_not() -> None:
    known, unit = training()
    every = torch.arange(IMAGES)
    looks = look_at_all(known.network, known.pixels, every, glimpses=T, choose=greedy, halting=unit)
    assert set(looks.steps.tolist()) == {1, 2}


def test_the_location_head_climbs_the_expected_reward_of_the_halted_answer() -> None:
    """Over all 16 sequences of 4 cells; where the network stops after the first, the second earns nothing."""
    known, unit = training()
    network, labels = known.network, known.labels
    with torch.no_grad():  # the cost and the baseline's own loss do not reach the location head
        network.baseline.weight.zero_()
        network.baseline.bias.fill_(0.3)
    parameters = list(network.locator.parameters())
    expected, got, every = torch.zeros(()), torch.zeros(()), torch.arange(IMAGES)
    earned = []
    for a, b in itertools.product(range(4), repeat=2):
        rollout = network(known.pixels, glimpses=T, choose=along((a, b)))
        policy = network.locator(previous_states(rollout.states, torch.zeros_like(rollout.states[:, 0]))).softmax(-1)
        likely = policy[:, 0, a] * policy[:, 1, b]
        h, q = unit(rollout.states)[:, :1], rollout.class_logits.softmax(-1)
        mean = torch.where(h >= 0.99, q[:, 0], h * q[:, 0] + (1 - h) * q[:, 1])
        reward = (mean.argmax(-1) == labels).float()
        earned.append(reward)
        expected = expected - (likely * reward).mean()
        for image in every.tolist():
            step = act_step(
                known._replace(choose=lambda _, path=(a, b): along(path)), unit, every[image][None], Generator()
            )
            got = got + likely[image].detach() * step / IMAGES
    assert torch.stack(earned).std(0).max() > 0
    for one, other in zip(*(torch.autograd.grad(loss, parameters) for loss in (got, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def half_at_first(count: int, draws: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Images of two classes on noise: the first cell is dark or bright by the label, or grey in half of the images; the
    second is dark or bright in all of them. Returns pixels, labels, and which first cells are grey."""
    pixels = torch.randint(0, 256, (count, 1, 6, 6), dtype=torch.uint8, generator=draws)
    labels = torch.randint(2, (count,), generator=draws)
    grey = torch.rand(count, generator=draws) < 0.5
    shade = (labels * 255).byte()[:, None, None, None]
    pixels[:, :, :3, 3:] = shade
    pixels[:, :, :3, :3] = torch.where(grey[:, None, None, None], torch.tensor(128, dtype=torch.uint8), shade)
    return pixels, labels, grey


@pytest.mark.parametrize(
    ("cost", "early"),
    [(0.3, True), pytest.param(3.0, None, marks=pytest.mark.slow), pytest.param(1e-6, False, marks=pytest.mark.slow)],
)
def test_images_that_are_told_at_once_learn_to_stop_at_once(cost: float, early: bool | None) -> None:
    """At a moderate cost exactly the images whose first cell tells stop there; at a great one all do.

    At a negligible cost the images whose first cell is grey go on.
    """
    known, _ = training(choose=along((0, 1)), halting_cost=cost)
    draws = Generator().manual_seed(1)
    torch.manual_seed(0)
    network = HardAttention(FOUR, channels=1, classes=2, hidden=16)
    unit = HaltingUnit(16)
    adam = torch.optim.Adam((*network.parameters(), *unit.parameters()), lr=1e-2)
    for _ in range(400):
        pixels, labels, _ = half_at_first(64, draws)
        adam.zero_grad()
        step = known._replace(network=network, pixels=pixels, labels=labels)
        act_step(step, unit, torch.arange(64), draws).backward()
        adam.step()
    pixels, labels, grey = half_at_first(200, draws)
    looks = look_at_all(network, pixels, torch.arange(200), glimpses=T, choose=along((0, 1)), halting=unit)
    if early is None:
        assert (looks.steps == 1).all()
        return
    assert (looks.class_logits[:, -1].argmax(-1) == labels).float().mean() > 0.98
    assert (looks.steps[grey] == 2).float().mean() > 0.98
    if early:
        assert (looks.steps[~grey] == 1).float().mean() > 0.98


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    folder = tmp_path_factory.mktemp("act")
    made = Stages(folder, write_npz(folder / "images.npz"))
    made.posterior()
    made.bank()
    made.search()
    made.train("cheap", "act", sequences=made.folder / "sequences", halting_cost=1e-6)
    made.train("dear", "act", sequences=made.folder / "sequences", halting_cost=5.0)
    made.train("seed-1", "act", seed=1, iterations=20, sequences=made.folder / "sequences", halting_cost=5.0)
    made.train("ram", "ram")
    fit = nogs.Optimisation(iterations=20, batch_size=32, validate_every=20)
    nogs.fit_stopping(nogs.FitStopping(made.machine("stopping"), made.folder / "ram", (0.1,), fit), silent)
    return made


def test_a_training_leaves_network_and_unit_of_its_least_cost(stages: Stages) -> None:
    """The logged figures are those of the saved weights, for the greedy and for the sampled policy."""
    run = run_of(stages, "cheap")
    data = nogs.load(stages.source)
    val = data.members("val")
    for suffix, prefix, choose in (("", "", greedy), ("-sampled", "sampled_", sampling(chance(0, 17)))):
        _, network = load_network(run, f"model{suffix}", kind=HardAttentionSpec, device=torch.device("cpu"))
        unit = load_halting(run, f"halting{suffix}", device=torch.device("cpu"))
        looks = look_at_all(network, data.images, val, glimpses=T, choose=choose, halting=unit)
        row = min(run.rows(), key=lambda row: row[f"{prefix}cost_nats"])
        nll = torch.nn.functional.nll_loss(looks.class_logits[:, -1], data.labels[val]).item()
        assert row[f"{prefix}nll_nats"] == pytest.approx(nll, abs=1e-5)
        assert row[f"{prefix}mean_glimpses"] == pytest.approx(looks.steps.float().mean().item())
        assert row[f"{prefix}cost_nats"] == pytest.approx(nll + 1e-6 * row[f"{prefix}mean_glimpses"], abs=1e-5)


def test_a_dear_glimpse_is_taken_less_often(stages: Stages) -> None:
    cheap, dear = (run_of(stages, name).rows()[-1]["mean_glimpses"] for name in ("cheap", "dear"))
    assert dear < cheap


def test_an_evaluation_scores_the_answers_of_the_unit(stages: Stages) -> None:
    run = stages.evaluate("evaluation", "cheap")
    data, scores = nogs.load(stages.source), run.load_json("results.json")["methods"]["act"]
    _, network = load_network(run_of(stages, "cheap"), "model", kind=HardAttentionSpec, device=torch.device("cpu"))
    unit = load_halting(run_of(stages, "cheap"), "halting", device=torch.device("cpu"))
    test = data.members("test")
    looks = look_at_all(network, data.images, test, glimpses=T, choose=greedy, halting=unit)
    right = (looks.class_logits[:, -1].argmax(-1) == data.labels[test]).float().mean().item()
    assert scores["test_accuracy"] == [pytest.approx(right)]
    assert scores["mean_glimpses"] == [pytest.approx(looks.steps.float().mean().item())]


def test_trainings_of_several_costs_are_a_curve_beside_the_stopping_heads(stages: Stages) -> None:
    """Each point by a plain loop over test images: mean steps, share of right answers, and multiply-adds."""
    run = stages.evaluate(
        "curves",
        "ram",
        stopping=(stages.folder / "stopping",),
        halting=(stages.folder / "dear", stages.folder / "cheap"),
    )
    results, data = run.load_json("results.json"), nogs.load(stages.source)
    test = data.members("test")
    (points,) = results["stopping_by_seed"]["act_joint"]
    assert points == results["stopping"]["act_joint"]
    assert [point[0] for point in points] == [1e-6, 5.0]
    macs = results["methods"]["ram"]["macs_by_glimpse"]
    answer = halting = 32
    spent = {1: macs[0] + halting, 2: macs[1] + answer * len(CLASS_NAMES) + halting}
    for point, name in zip(points, ("cheap", "dear"), strict=True):
        _, network = load_network(run_of(stages, name), "model", kind=HardAttentionSpec, device=torch.device("cpu"))
        unit = load_halting(run_of(stages, name), "halting", device=torch.device("cpu"))
        assert unit is not None
        steps, right = [], []
        for image in test.tolist():
            rollout = network(data.images[image][None], glimpses=T, choose=greedy)
            mean, stop, _ = plain(unit(rollout.states)[0].tolist(), rollout.class_logits[0].softmax(-1).tolist())
            steps.append(stop)
            right.append(max(range(len(mean)), key=mean.__getitem__) == data.labels[image].item())
        expected = [sum(values) / len(test) for values in (steps, right, [spent[stop] for stop in steps])]
        assert point[1:] == pytest.approx(expected)
    assert {"act_joint", "act", "fixed"} <= results["stopping_advantage"]["eig"].keys()
    assert {str(stages.folder / name) for name in ("cheap", "dear")} <= run.provenance["inputs"].keys()


@pytest.mark.parametrize(
    ("halting", "complaint"),
    [
        (("ram",), "ram was trained by ram: give runs of method act"),
        (("cheap", "cheap"), "the same costs for each seed, each once"),
        (("seed-1",), "`halting` has seeds 1, and `stopping` 0"),
        (("cheap", "seed-1"), "`halting` has seeds 0, 1, and `stopping` 0"),
    ],
)
def test_trainings_that_do_not_fit_the_stopping_heads_are_refused(
    stages: Stages, tmp_path: Path, halting: tuple[str, ...], complaint: str
) -> None:
    paths = tuple(stages.folder / name for name in halting)
    with pytest.raises(UserError, match=complaint):
        stages.evaluate(str(tmp_path / "out"), "ram", stopping=(stages.folder / "stopping",), halting=paths)
    assert not (tmp_path / "out").exists()


def test_other_methods_have_no_unit(stages: Stages) -> None:
    assert load_halting(run_of(stages, "ram"), "halting", device=torch.device("cpu")) is None
    assert "mean_glimpses" not in run_of(stages, "ram").rows()[0]


def test_predictions_are_those_of_the_unit(stages: Stages, tmp_path: Path) -> None:
    """Labels, probabilities, steps and multiply-adds by a plain loop, from a run directory and from a saved model."""
    data = nogs.load(stages.source)
    images = [image[0].numpy() for image in data.images[data.members("test")]]
    steps = set()
    for name in ("cheap", "dear"):
        _, network = load_network(run_of(stages, name), "model", kind=HardAttentionSpec, device=torch.device("cpu"))
        unit = load_halting(run_of(stages, name), "halting", device=torch.device("cpu"))
        assert unit is not None
        model = nogs.load_model(stages.folder / name)
        model.save(tmp_path / name)
        predictions = model.predict(images)
        assert nogs.load_model(tmp_path / name).predict(images) == predictions
        for image, answer in zip(images, predictions, strict=True):
            rollout = network(torch.from_numpy(image)[None, None], glimpses=T, choose=greedy)
            mean, stop, _ = plain(unit(rollout.states)[0].tolist(), rollout.class_logits[0].softmax(-1).tolist())
            assert list(answer.probs.values()) == pytest.approx(mean, abs=1e-5)
            assert answer.steps == len(answer.glimpses) == stop
            corners = network.grid.top_left_px(rollout.cells[0, :stop]).tolist()
            assert [[row, column] for row, column, _ in answer.glimpses] == corners
            halting, logits = 32 * min(stop, T - 1), 32 * len(CLASS_NAMES) * (stop - 1)
            assert answer.macs == model.macs_by_glimpse[stop - 1] + halting + logits
            steps.add(stop)
        with pytest.raises(UserError, match=r"threshold=0.1: a network of act stops by itself"):
            model.predict(images[0], threshold=0.1)
    assert steps == {1, 2}
