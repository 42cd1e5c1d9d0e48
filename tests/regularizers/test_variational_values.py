"""VariationalMI of codes with a posterior: the equation, joints, parts, diagnostics."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import (
    Laplace,
    Normal,
    Uniform,
)
from variational_codes import Formula, codes, gaussian_parts, linear

import vaereg
from vaereg import critics
from vaereg.functional import categorical_entropy, mixture_entropy

pytestmark = pytest.mark.usefixtures("one_thread")


def test_value_of_a_gaussian_code_is_a_bound_on_average():
    """z = x + 0.3 e, g = z + 0.3 e': below I(z; g) for small batches, close for large ones."""
    z_noise, g_noise = 0.09, 0.09
    variance = 1.0 + z_noise
    exact = 0.5 * math.log(1.0 + variance / g_noise)
    slope = variance / (variance + g_noise)
    critic = critics.GaussianHead(
        linear(torch.tensor([[slope]])), 1, variance=variance * g_noise / (variance + g_noise)
    )
    term = vaereg.VariationalMI("z", given="g", critic=critic)
    found = []
    for rows, batches in ((2, 3000), (16, 1500), (512, 150)):
        values = []
        for _ in range(batches):
            mean = torch.randn(rows, 1)
            z = vaereg.gaussian(mean, var=torch.full_like(mean, z_noise))
            g = z.value + math.sqrt(g_noise) * torch.randn(rows, 1)
            values.append(term({"z": z, "g": g}).detach())
        values = torch.stack(values)
        found.append(values.mean().item())
        assert found[-1] < exact + 4.0 * values.std().item() / math.sqrt(batches)
    assert found == sorted(found)
    assert found[0] < exact - 0.3 and found[-1] > exact - 0.05


def test_value_against_its_equation():
    """Part, joint of two kinds, joint with a label: torch's likelihoods, tested entropies."""
    batch, _ = codes(7)
    z, c, y, x = batch["z"], batch["c"], batch["y"], batch["x"]
    critic = nn.Linear(5, 4 + 4 + 2).double()
    said = critic(x)
    spread = (0.5 * said[:, 2:4]).exp()
    rows_z = Normal(said[:, :2], spread).log_prob(z.value[:, 1:]).sum(1)
    rows_c = (c.value * said[:, 4:8].log_softmax(1)).sum(1)
    rows_y = (y * said[:, 8:].log_softmax(1)).sum(1)
    pi = c.q.base_dist.probs if hasattr(c.q, "base_dist") else c.q.probs
    part = gaussian_parts(z, slice(1, None))

    def value(code, *columns, **options):
        head = linear(critic.weight[list(columns)], critic.bias[list(columns)])
        return vaereg.VariationalMI(code, given="x", critic=head, **options)(batch)

    torch.testing.assert_close(value("z[1:]", *range(4)), rows_z.mean() + mixture_entropy(*part))
    torch.testing.assert_close(value("z[1:]", *range(4), entropy="none"), rows_z.mean())
    joint = (rows_z + rows_c).mean() + mixture_entropy(*part, pi)
    torch.testing.assert_close(value(("z[1:]", "c"), *range(8)), joint)
    torch.testing.assert_close(value(("c", "z[1:]"), *range(4, 8), *range(4)), joint)
    present = y.sum(1) > 0
    both = (pi[present].unsqueeze(2) * y[present].unsqueeze(1)).flatten(1)
    rows = (rows_c + rows_y)[present].mean()
    torch.testing.assert_close(value(("c", "y"), *range(4, 10)), rows + categorical_entropy(both))
    three = (rows_z + rows_c + rows_y)[present].mean()
    known = mixture_entropy(*(t[present] for t in part), both)
    torch.testing.assert_close(value(("z[1:]", "c", "y"), *range(10)), three + known)


def test_joint_of_independent_codes_is_the_sum():
    """Rows that say the same: values, chained, add up; as do a draw from a prior and a code."""
    rows = 9
    x = torch.randn(rows, 5).double()
    z = vaereg.gaussian(torch.zeros(rows, 4).double())
    c = vaereg.categorical(torch.randn(3).double().expand(rows, 3), 0.5)
    u = vaereg.Code(torch.rand(rows, 2).double(), None, Uniform(torch.zeros(2).double(), 1.0))
    batch = {"z": z, "c": c, "u": u, "x": x}
    critic = nn.Linear(5, 4 + 3 + 4).double()
    parts = {"z": slice(0, 4), "c": slice(4, 7), "u": slice(7, 11)}
    apart = sum(
        vaereg.VariationalMI(
            name, given="x", critic=linear(critic.weight[at], critic.bias[at])
        )(batch)
        for name, at in parts.items()
    )  # fmt: skip
    joint = vaereg.VariationalMI(("z", "c", "u"), given="x", critic=critic)
    torch.testing.assert_close(joint(batch), apart)
    split = Formula(lambda g: critic(g).split([4, 3, 4], 1))
    torch.testing.assert_close(
        vaereg.VariationalMI(("z", "c", "u"), given="x", critic=split)(batch), apart
    )


def test_images_and_parts_are_the_flat_codes():
    z, x = torch.randn(5, 4, 2, 3), torch.randn(5, 2, 2, 3)
    code = vaereg.gaussian(z)
    flat = vaereg.gaussian(
        tuple(half.flatten(1) for half in z.chunk(2, 1)), value=code.value.flatten(1)
    )
    critic = nn.Conv2d(2, 4, 1)
    image = vaereg.VariationalMI("z", given="x", critic=critic)({"z": code, "x": x})
    flattened = Formula(lambda x: critic(x).flatten(1))
    found = vaereg.VariationalMI("z", given="x", critic=flattened)({"z": flat, "x": x})
    torch.testing.assert_close(image, found)
    part = vaereg.VariationalMI("z[0]", given="x", critic=nn.Conv2d(2, 2, 1))
    assert part({"z": code, "x": x}).isfinite()


def test_several_categorical_variables():
    """(B, G, K): likelihoods add, the entropy is of the joint, not the larger sum."""
    logits = torch.tensor([[2.0, 0.0, -2.0], [-2.0, 0.0, 2.0]]).double()
    logits = logits[[0, 0, 1, 1, 1]].unsqueeze(1).repeat(1, 2, 1)
    code, x = vaereg.categorical(logits, 0.5), torch.randn(5, 4).double()
    critic = nn.Linear(4, 6).double()
    said = critic(x).view(5, 2, 3).log_softmax(2)
    pi = logits.softmax(2)
    both = (pi[:, 0].unsqueeze(2) * pi[:, 1].unsqueeze(1)).flatten(1)
    expected = (code.value * said).sum((1, 2)).mean() + categorical_entropy(both)
    term = vaereg.VariationalMI("c", given="x", critic=critic)
    torch.testing.assert_close(term({"c": code, "x": x}), expected)
    shaped = vaereg.VariationalMI(
        "c", given="x", critic=Formula(lambda x: critic(x).view(5, 2, 3))
    )
    torch.testing.assert_close(shaped({"c": code, "x": x}), expected)
    assert categorical_entropy(both) < categorical_entropy(pi[:, 0]) * 2 - 1e-3
    one = vaereg.VariationalMI(
        "c[1]", given="x", critic=linear(critic.weight[3:], critic.bias[3:])
    )
    alone = (code.value[:, 1] * said[:, 1]).sum(1).mean() + categorical_entropy(pi[:, 1])
    torch.testing.assert_close(one({"c": code, "x": x}), alone)
    # Several labels in one tensor: a row counts where all of them are there.
    y = vaereg.labels(torch.tensor([[0, 1], [1, -1], [2, 2], [-1, -1], [0, 0]]), 3).double()
    found = vaereg.VariationalMI("y", given="x", critic=critic)({"y": y, "x": x})
    kept = [0, 2, 4]
    torch.testing.assert_close(
        found, vaereg.VariationalMI("y", given="x", critic=critic)({"y": y[kept], "x": x[kept]})
    )
    shown = term.diagnostics({"c": code, "x": x})
    hits = (said.argmax(2) == code.value.argmax(2)).double().mean()
    assert shown["accuracy"].item() == pytest.approx(hits.item())


def test_parts_that_do_not_overlap_are_not():
    z = vaereg.gaussian((torch.zeros(4, 6), torch.zeros(4, 6)))
    term = vaereg.VariationalMI(("z[:2]", "z[4:6]"), "x", critic=nn.Linear(3, 8))
    assert term({"z": z, "x": torch.randn(4, 3)}).isfinite()


# ---- diagnostics


def test_diagnostics():
    batch, _ = codes(8)
    z, x = batch["z"], batch["x"]
    critic = nn.Linear(5, 6 + 4).double()
    shown = vaereg.VariationalMI(("z", "c"), given="x", critic=critic).diagnostics(batch)
    assert set(shown) == {"entropy", "accuracy", "log_likelihood", "explained"}
    mean = critic(x)[:, :3]
    error = (z.value - mean).square().mean(0) / z.value.var(0, unbiased=False)
    torch.testing.assert_close(shown["explained"], (1.0 - error).detach())
    term = vaereg.VariationalMI(("z", "c"), given="x", critic=critic)
    total = shown["entropy"] + shown["log_likelihood"]
    torch.testing.assert_close(total, term(batch).detach())
    assert not any(value.requires_grad for value in shown.values())
    # A code of unknown entropy, and a distribution that is no Gaussian.
    code = vaereg.deterministic(z.value.detach())
    said = Formula(lambda x: Laplace(x[:, :3], torch.ones(3).double()))
    term = vaereg.VariationalMI("z", given="x", critic=said, entropy="none")
    assert set(term.diagnostics({"z": code, "x": x})) == {"log_likelihood"}
    one = {"z": z.value[:1].detach(), "x": x[:1]}
    one["z"] = vaereg.gaussian((one["z"], torch.zeros(1, 3).double()))
    term = vaereg.VariationalMI("z", given="x", critic=nn.Linear(5, 6).double())
    assert all(value.isfinite().all() for value in term.diagnostics(one).values())


def test_diagnostics_without_entropy_need_none():
    c = vaereg.categorical(torch.randn(4, 8, 10), temperature=1.0)
    term = vaereg.VariationalMI("c", "x", critic=nn.Linear(3, 80), entropy="none")
    assert "entropy" not in term.diagnostics({"c": c, "x": torch.randn(4, 3)})
