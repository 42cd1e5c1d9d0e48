"""What is measured of VMI models: accuracies, consensus, the pick, pictures."""

import numpy as np
import pytest
import torch
from vmi_runs import CPU, blobs, settings

from vmi.evaluate import RANGE, accuracies, consensus, measure
from vmi.report import correlations, picked
from vmi.train import Trainer

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_accuracies_under_both_maps():
    label = np.array([0] * 6 + [1] * 4 + [2] * 2)
    code = np.array([0] * 3 + [1] * 3 + [2] * 4 + [2] * 2)
    scored = accuracies(code, label)
    # Codes 0 and 1 both hold class 0: one-to-one may use one of them only.
    assert scored["one_to_one"] == pytest.approx(7 / 12)
    assert scored["majority"] == pytest.approx(10 / 12)
    assert scored["counts"] == [[3, 0, 0], [3, 0, 0], [0, 4, 2]]
    assert accuracies((label + 1) % 3, label)["one_to_one"] == 1.0


def test_consensus_is_the_mean_agreement_with_the_others():
    a = np.arange(12) % 3
    assert consensus([a, (a + 1) % 3]) == [1.0, 1.0]
    values = consensus([a, a, np.arange(12) // 4])
    assert values[0] == values[1] > values[2]
    assert consensus([a]) == [0.0]


def run_of(seed, bound, accuracy, elbo):
    return {"name": str(seed), "unsupervised": {"bound": bound, "flat": 1.0},
            "accuracy": {"one_to_one": accuracy}, "held_out": {"elbo": elbo}}  # fmt: skip


def test_the_pick_reads_no_label():
    runs = [run_of(0, 2.0, 0.5, -3.0), run_of(1, 2.2, 0.6, -1.0), run_of(2, 2.1, 0.9, -2.0)]
    assert picked(runs)["name"] == "1"
    assert correlations(runs) == {"bound": pytest.approx(0.5), "elbo": pytest.approx(0.5)}


@pytest.mark.parametrize("model", ["joint", "gaussian"])
def test_measuring_leaves_the_random_state_alone(model):
    trainer = Trainer(settings(model=model), blobs(), CPU)
    before = torch.get_rng_state()
    one, two = (measure(trainer.vae, blobs(), trainer.settings) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert one.values == two.values
    held = one.values["held_out"]
    parts = [held[name] for name in ("nll", "kl_z", "kl_c") if name in held]
    assert held["elbo"] == pytest.approx(-sum(parts))


def test_the_traversal_has_the_first_number_to_the_right_and_the_second_upwards():
    trainer = Trainer(settings(model="gaussian"), blobs(), CPU)

    class Painter(torch.nn.Module):
        def forward(self, codes):
            return codes[:, :2, None, None].expand(-1, -1, 8, 8).mean(1, keepdim=True) * 0 + (
                codes[:, 0, None, None, None] + 10 * codes[:, 1, None, None, None]
            ).expand(-1, 1, 8, 8)

    trainer.vae.decoder.forward = Painter().forward
    seen = (
        measure(trainer.vae, blobs(), trainer.settings)
        .pictures["traversal"][..., 0, 0]
        .astype(float)
    )
    across, up = np.meshgrid(RANGE, RANGE[::-1])
    expected = 255 / (1 + np.exp(-(across + 10 * up)))
    np.testing.assert_allclose(seen, expected, atol=1.0)
