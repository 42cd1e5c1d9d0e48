import pytest
import torch
from torch import Tensor, nn

from vaereg.metrics import SwapAccuracy, swap_accuracy


def identity(x: Tensor) -> Tensor:
    return x


def flip(x: Tensor, y: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    return -x, 1 - y


def batches(n: int = 40) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (n,), generator=g)
    x = (2.0 * y - 1.0).unsqueeze(1)
    return [(x[: n // 2], y[: n // 2]), (x[n // 2 :], y[n // 2 :])]


def test_perfect_and_useless_swaps() -> None:
    perfect = swap_accuracy(flip, identity, batches())
    assert perfect.accuracy == 1.0 and perfect.count == 40
    useless = swap_accuracy(lambda x, y, g: (x, 1 - y), identity, batches())
    assert useless.accuracy == 0.0 and useless.interval[0] == 0.0
    assert sum(perfect.counts.values()) == 40


def test_per_attribute() -> None:
    def always_one(x: Tensor, y: Tensor, g: torch.Generator | None) -> tuple[Tensor, Tensor]:
        return torch.ones_like(x), 1 - y

    result = swap_accuracy(always_one, identity, batches())
    assert result.per_attribute == {0: 0.0, 1: 1.0}
    assert result.accuracy == pytest.approx(result.counts[1] / 40)


def test_wilson_interval_by_its_definition() -> None:
    # The ends p solve |hits/n - p| = z sqrt(p (1 - p) / n).
    x = torch.tensor([1.0] * 30 + [-1.0] * 10)
    result = swap_accuracy(lambda x, y, g: (x, y), identity, [(x, torch.ones(40).long())])
    for p in result.interval:
        assert abs(0.75 - p) == pytest.approx(1.959964 * (p * (1 - p) / 40) ** 0.5, abs=1e-9)
    assert str(result) == "0.750 [0.598, 0.858] (40 swapped images)"


def test_many_classes_and_rows_left_out() -> None:
    logits = torch.eye(4)

    def labelled(x: Tensor, y: Tensor, g: torch.Generator | None) -> tuple[Tensor, Tensor]:
        return x[y >= 0], y[y >= 0]

    result = swap_accuracy(labelled, identity, [(logits, torch.tensor([0, 1, -1, 2]))])
    assert result.count == 3 and result.per_attribute == {0: 1.0, 1: 1.0, 2: 0.0}


def test_classifier_mode_is_restored_and_no_graph_is_built() -> None:
    seen: list[tuple[bool, bool]] = []

    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Dropout(0.5)
            self.linear = nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            seen.append((self.inner.training, torch.is_grad_enabled()))
            return self.linear(x)

    probe = Probe().train()
    probe.inner.eval()  # a frozen part stays frozen
    swap_accuracy(flip, probe, batches())
    assert probe.training and not probe.inner.training
    assert seen == [(False, False)] * 2
    assert torch.is_grad_enabled()


def test_mode_is_restored_after_an_error() -> None:
    module = nn.Linear(1, 1).train()
    with pytest.raises(TypeError, match="integer targets"):
        swap_accuracy(lambda x, y, g: (x, y.float()), module, batches())
    assert module.training


def test_generator_reaches_the_swap() -> None:
    def noisy(x: Tensor, y: Tensor, g: torch.Generator | None) -> tuple[Tensor, Tensor]:
        return torch.randn(x.shape, generator=g), y

    def once() -> SwapAccuracy:
        return swap_accuracy(
            noisy, identity, batches(), generator=torch.Generator().manual_seed(3)
        )

    assert once() == once()


def test_errors() -> None:
    with pytest.raises(ValueError, match="at least one swapped image, got none"):
        swap_accuracy(flip, identity, [])
    with pytest.raises(ValueError, match=r"expected logits \(20, C\)"):
        swap_accuracy(flip, lambda x: x[:3], batches())
