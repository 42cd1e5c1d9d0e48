"""Critics: networks, conventions, and the frozen call."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from vaereg import critics
from vaereg.critics import (
    AllPairs,
    check_critic,
    frozen,
    input_width,
    pair_scores,
    read_input,
    takes_pair,
)


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


# ---- all pairs


PAIRS = {
    "concatenated": lambda **keys: critics.concatenated(3, 5, width=7, **keys),
    "concatenated, linear": lambda **keys: critics.concatenated(3, 5, width=7, depth=0, **keys),
    "concatenated, deep": lambda **keys: critics.concatenated(3, 5, width=7, depth=3, **keys),
    "separable": lambda **keys: critics.separable(3, 5, embedding=4, width=7, **keys),
}
OPTIONS = {
    "plain": {},
    "gelu": {"activation": "gelu"},
    "layer norm": {"layer_norm": True},
    "spectral norm": {"spectral_norm": True},
    "both norms": {"spectral_norm": True, "layer_norm": True, "activation": "tanh"},
}


def loop_over_pairs(critic, a, b):
    """One pair at a time, through the critic's own forward, in evaluation mode."""
    critic = copy.deepcopy(critic).eval()
    return torch.stack([torch.cat([critic(x[None], y[None]) for y in b]) for x in a])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", PAIRS)
def test_all_pairs_are_the_loop_over_pairs(kind, options):
    critic = PAIRS[kind](**OPTIONS[options]).double().eval()
    a, b = torch.randn(4, 3, 1).double(), torch.randn(6, 5).double()
    table = critic.all_pairs(a, b)
    assert table.shape == (4, 6)
    torch.testing.assert_close(table, loop_over_pairs(critic, a, b), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(AllPairs(critic)(a, b), table)


@pytest.mark.parametrize("kind", PAIRS)
def test_spectral_norm_moves_once_a_call_and_alike(kind):
    """In training mode each reading of a weight is a step of its power iteration."""
    one = PAIRS[kind](spectral_norm=True).double().train()
    two, read = copy.deepcopy(one), []
    for name, module in one.named_modules():
        if isinstance(module, nn.utils.parametrizations._SpectralNorm):
            module.register_forward_hook(lambda *_, name=name: read.append(name))
    a, b = torch.randn(4, 3).double(), torch.randn(4, 5).double()
    table = one.all_pairs(a, b)
    assert len(read) == len(set(read)) > 0
    aligned = two(a, b)
    torch.testing.assert_close(table.diagonal(), aligned, rtol=1e-10, atol=1e-10)
    for (name, first), second in zip(one.named_buffers(), two.buffers(), strict=True):
        assert torch.equal(first, second), name
    if kind != "concatenated, linear":  # there a matrix of one row converges at once
        assert not torch.equal(one.all_pairs(a, b), table)


def test_all_pairs_of_any_critic():
    a, b = torch.randn(4, 3), torch.randn(6, 3)
    for critic in (nn.Linear(6, 1), nn.Bilinear(3, 3, 1)):
        pair = takes_pair(critic)
        table = AllPairs(critic)(a, b)
        for i in range(4):
            row = pair_scores(critic, a[i].expand(6, 3), b, pair=pair)
            torch.testing.assert_close(table[i], row)
    bad = critics.separable(3, 3)
    bad.all_pairs = lambda a, b: torch.zeros(4)
    with pytest.raises(ValueError, match=r"all_pairs to return shape \(4, 6\), got \(4,\)"):
        AllPairs(bad)(a, b)
    half = AllPairs(critics.separable(3, 3).bfloat16())(a.bfloat16(), b.bfloat16())
    assert half.dtype == torch.float32


@pytest.mark.parametrize("kind", PAIRS)
def test_frozen_serves_all_pairs(kind):
    critic = PAIRS[kind](spectral_norm=True)
    before = {name: entry.clone() for name, entry in critic.state_dict().items()}
    a, b = torch.randn(4, 3, requires_grad=True), torch.randn(6, 5, requires_grad=True)
    again = [t.detach().clone().requires_grad_() for t in (a, b)]
    table = frozen(AllPairs(critic))(a, b)
    table.square().sum().backward()
    assert all(p.grad is None and p.requires_grad for p in critic.parameters())
    for name, entry in critic.state_dict().items():
        assert torch.equal(entry, before[name]), name
    plain = critic.all_pairs(*again)
    plain.square().sum().backward()
    torch.testing.assert_close(table, plain)
    for one, two in zip((a, b), again, strict=True):
        torch.testing.assert_close(one.grad, two.grad)
        assert one.grad.abs().sum() > 0


def test_widths_of_pair_critics():
    assert critics.separable(3, 5).widths == (3, 5)
    assert critics.Separable(nn.Identity(), nn.Linear(5, 2)).widths == (None, 5)
    assert critics.concatenated(3, 5).widths == (3, 5)


def test_concatenated_refuses():
    with pytest.raises(ValueError, match="b_features >= 1, got 0"):
        critics.concatenated(3, 0)
    for network in (nn.Linear(4, 1), nn.Sequential(), nn.Sequential(nn.ReLU())):
        with pytest.raises(TypeError, match=r"Sequential that starts with a torch.nn.Linear"):
            critics.Concatenated(network, 2)
    for a_features in (0, 4):
        with pytest.raises(ValueError, match="0 < a_features < 4"):
            critics.Concatenated(nn.Sequential(nn.Linear(4, 1)), a_features)
    hooked = nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 1)))
    with pytest.raises(ValueError, match=r"without hooks.*parametrizations.spectral_norm"):
        critics.Concatenated(hooked, 2)


def test_read_input():
    image = torch.zeros(2, 3, 4, 4)
    assert read_input(critics.mlp(48, 1), image).shape == (2, 48)
    assert read_input(nn.Conv2d(3, 1, 3), image) is image
