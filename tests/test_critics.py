"""Critics: networks, conventions, and the frozen call."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from vaereg import critics
from vaereg.critics import check_critic, frozen, input_width, pair_scores, takes_pair


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x).relu())


class Running(nn.Module):
    """A buffer that every training call moves."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(4, 1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls.add_(1.0)
        return self.map(x)


KINDS = {
    "mlp": lambda: critics.mlp(4, 1, width=8),
    "layer norm": lambda: critics.mlp(4, 1, width=8, layer_norm=True, activation="gelu"),
    "spectral norm": lambda: critics.mlp(4, 1, width=8, spectral_norm=True),
    "old spectral norm": lambda: nn.utils.spectral_norm(nn.Linear(4, 1)),
    "dropout": lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1)),
    "tied": Tied,
    "running": Running,
}


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_gives_the_inputs_gradient_and_moves_nothing(kind):
    module = KINDS[kind]()
    plain = copy.deepcopy(module)
    before = {name: entry.clone() for name, entry in module.state_dict().items()}
    x = torch.randn(5, 4, requires_grad=True)
    again = x.detach().clone().requires_grad_()
    torch.manual_seed(1)
    value = frozen(module)(x).sum()
    value.backward()
    torch.manual_seed(1)
    expected = plain(again).sum()
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(x.grad, again.grad)
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    for name, entry in module.state_dict().items():
        assert torch.equal(entry, before[name]), name


def test_frozen_reads_the_current_parameters():
    module = nn.Linear(4, 1)
    call = frozen(module)
    with torch.no_grad():
        module.weight.fill_(2.0)
        module.bias.zero_()
    torch.testing.assert_close(call(torch.ones(1, 4)), torch.full((1, 1), 8.0))


def test_frozen_inside_of_a_joint_backward_of_a_live_call():
    """Spectral norm's power iteration moves in the live call between two frozen ones."""
    module = critics.mlp(4, 1, width=8, spectral_norm=True)
    x = torch.randn(5, 4, requires_grad=True)
    total = frozen(module)(x).sum() + module(x.detach()).sum() + frozen(module)(x).sum()
    total.backward()
    assert all(p.grad is not None for p in module.parameters())


def test_mlp_is_the_network_it_says():
    network = critics.mlp(3, 2, width=5, depth=3, activation="leaky_relu")
    widths = [(m.in_features, m.out_features) for m in network if isinstance(m, nn.Linear)]
    assert widths == [(3, 5), (5, 5), (5, 5), (5, 2)]
    assert critics.mlp(3, 2, depth=0)(torch.zeros(1, 3)).shape == (1, 2)
    for layer in critics.mlp(6, 4, width=8, spectral_norm=True).train():
        if isinstance(layer, nn.Linear):
            for _ in range(50):
                layer(torch.zeros(1, layer.in_features))
            assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"in_features": 0}, "in_features >= 1, got 0"),
        ({"in_features": 2, "width": 0}, "width >= 1"),
        ({"in_features": 2, "depth": -1}, "depth >= 0"),
        ({"in_features": 2, "activation": "swoosh"}, "got 'swoosh'"),
    ],
)
def test_mlp_refuses(keywords, message):
    with pytest.raises(ValueError, match=message):
        critics.mlp(**keywords)


def test_separable_scores():
    critic = critics.separable(3, 5, embedding=4, width=8)
    a, b = torch.randn(6, 3), torch.randn(6, 5)
    table = critic.all_pairs(a, b)
    torch.testing.assert_close(table.diagonal(), critic(a, b))
    slow = sum((critic.a(a)[1, k] * critic.b(b)[4, k]).item() for k in range(4)) / math.sqrt(4)
    assert table[1, 4].item() == pytest.approx(slow, abs=1e-5)


def test_conventions():
    assert takes_pair(critics.separable(1, 1)) and takes_pair(nn.Bilinear(2, 2, 1))
    assert not takes_pair(nn.Linear(2, 1)) and not takes_pair(critics.mlp(2, 1))
    assert input_width(nn.Sequential(nn.Flatten(), nn.Linear(7, 1))) == 7
    assert input_width(nn.Bilinear(2, 2, 1)) is None and input_width(nn.Sequential()) is None
    a, b = torch.randn(3, 2), torch.randn(3, 2)
    bilinear, linear = nn.Bilinear(2, 2, 1), nn.Linear(4, 1)
    assert pair_scores(bilinear, a, b, pair=True).shape == (3,)
    joined = linear(torch.cat((a, b), 1)).flatten()
    torch.testing.assert_close(pair_scores(linear, a, b, pair=False), joined)
    half = pair_scores(lambda x: x[:, 0].bfloat16(), a, b, pair=False)
    assert half.dtype == torch.float32
    with pytest.raises(ValueError, match=r"one score a row, shape \(3,\), got \(3, 2\)"):
        pair_scores(nn.Linear(4, 2), a, b, pair=False)


def test_check_critic():
    check_critic(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), "t")
    with pytest.raises(TypeError, match=r"t: expected critic to be a torch.nn.Module"):
        check_critic(lambda x: x, "t")
    for norm in (nn.BatchNorm1d(2), nn.SyncBatchNorm(2), nn.LazyBatchNorm1d()):
        with pytest.raises(ValueError, match=r"without batch normalisation.*'1'"):
            check_critic(nn.Sequential(nn.Linear(2, 2), norm), "t")
