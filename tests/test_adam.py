"""Adam against torch's own, bit for bit, against the paper's formulas, and without torch's compiler."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nogs.training.adam import FUSED, Adam

STEPS = 7


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 4), (5,), ())]


def descend(variables: list[nn.Parameter], optimiser: Adam | torch.optim.Adam, steps: range) -> None:
    """Set gradients by hand; the second parameter has one in every other step alone."""
    for step in steps:
        optimiser.zero_grad()
        for index, variable in enumerate(variables):
            if index != 1 or step % 2:
                variable.grad = torch.randn(variable.shape, generator=torch.Generator().manual_seed(10 * step + index))
        optimiser.step()


@pytest.mark.parametrize("fused", [True, False])
def test_it_equals_torch_bitwise(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nogs.training.adam.FUSED", FUSED if fused else ())
    ours, theirs = parameters(), parameters()
    optimiser, oracle = Adam(ours, learning_rate=0.01), torch.optim.Adam(theirs, lr=0.01, fused=fused)
    descend(ours, optimiser, range(STEPS))
    descend(theirs, oracle, range(STEPS))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)
    saved = {
        f"{index}/{name}": value
        for index, state in oracle.state_dict()["state"].items()
        for name, value in state.items()
    }
    assert optimiser.state().keys() == saved.keys()
    for key, value in optimiser.state().items():
        assert torch.equal(value, saved[key]), key


def test_it_follows_algorithm_1() -> None:
    """m_t and v_t by hand, in double precision, of one parameter that always has a gradient."""
    variable = nn.Parameter(torch.tensor([0.3, -2.0]))
    expected, m, v = variable.detach().double(), torch.zeros(2).double(), torch.zeros(2).double()
    optimiser = Adam([variable], learning_rate=0.05)
    for t in range(1, 30):
        gradient = torch.tensor([0.1 * t, (-1.0) ** t])
        variable.grad = gradient.clone()
        optimiser.step()
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        expected = expected - 0.05 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    torch.testing.assert_close(variable.detach().double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_it_goes_on_from_its_state(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nogs.training.adam.FUSED", FUSED if fused else ())
    whole, parted = parameters(), parameters()
    descend(whole, Adam(whole, learning_rate=0.01), range(STEPS))
    first = Adam(parted, learning_rate=0.01)
    descend(parted, first, range(3))
    saved: dict[str, Tensor] = {key: value.clone() for key, value in first.state().items()}
    second = Adam(parted, learning_rate=0.01)
    second.load_state(saved)
    descend(parted, second, range(3, STEPS))
    for one, other in zip(whole, parted, strict=True):
        assert torch.equal(one, other)
