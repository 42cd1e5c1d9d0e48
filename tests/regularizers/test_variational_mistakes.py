"""What VariationalMI says of codes, critics and options that it cannot use."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import (
    Categorical,
    Independent,
    Laplace,
    MultivariateNormal,
    Normal,
    StudentT,
)
from variational_codes import Formula, codes

import vaereg

pytestmark = pytest.mark.usefixtures("one_thread")


def test_validate():
    batch, _ = codes(8)
    term = vaereg.VariationalMI(("z", "y"), given="x", critic=nn.Linear(5, 8).double())
    term.validate(batch)
    flat = vaereg.gaussian((torch.zeros(8, 3), torch.full((8, 3), -1e4)))
    with pytest.raises(ValueError, match=r"code 'z' of positive, finite deviations, got 0.0 to 0"):
        term.validate({**batch, "z": flat})
    one_class = vaereg.labels(torch.zeros(8).long(), 2).double()
    with pytest.raises(ValueError, match="two classes of label 'y'"):
        term.validate({**batch, "y": one_class})
    with pytest.raises(TypeError, match="code 'z' with a factorised Gaussian"):
        term.validate({**batch, "z": vaereg.deterministic(torch.zeros(8, 3).double())})


X = torch.zeros(4, 2)


def refuses(kind, message, code, entry, critic, **options):
    batch = {"x": X, **(entry if isinstance(entry, dict) else {"z": entry})}
    with pytest.raises(kind, match=message):
        vaereg.VariationalMI(code, given="x", critic=critic, **options)(batch)


def test_entropies_that_are_not_known():
    width = nn.Linear(2, 6)
    none = r"code 'z' with a factorised Gaussian or a categorical .*got {}.*entropy='none'"
    shape = (torch.zeros(4, 3), torch.ones(4, 3))
    value = torch.zeros(4, 3)
    for entry, found in (
        (vaereg.deterministic(value), "neither posterior nor prior"),
        (vaereg.Code(value, Independent(Laplace(*shape), 1)), "a Laplace posterior"),
        (
            vaereg.Code(value, MultivariateNormal(value, torch.eye(3))),
            "a MultivariateNormal posterior",
        ),
        (vaereg.Code(value, None, MultivariateNormal(value, torch.eye(3))), None),
        (vaereg.Code(value, None, NoEntropy(*shape)), "a NoEntropy prior without an entropy in"),
    ):
        if found is not None:
            refuses(TypeError, none.format(found), "z", entry, width)
        term = vaereg.VariationalMI("z", given="x", critic=width, entropy="none")
        assert term({"z": entry, "x": X}).isfinite()
    full = vaereg.Code(value, None, MultivariateNormal(value, torch.eye(3)))
    refuses(TypeError, r"code 'z\[:2\]'.*prior without an entropy", "z[:2]", full, nn.Linear(2, 4))
    wrong = vaereg.Code(value, None, Normal(torch.zeros(2), 1.0))
    refuses(ValueError, r"code 'z': .*broadcasts to \(4, 3\), got \(2,\)", "z", wrong, width)
    many = vaereg.categorical(torch.zeros(4, 13, 2), 1.0)
    refuses(ValueError, "at most 4096 joint states", "z", many, nn.Linear(2, 26))
    both = {"z": many, "w": vaereg.gaussian(torch.zeros(4, 2))}
    message = "at most 256 joint states.*entropy='none'"
    refuses(ValueError, message, ("w", "z"), both, nn.Linear(2, 28))


class NoEntropy(StudentT):
    def __init__(self, loc, scale):
        super().__init__(3.0, loc, scale)

    def entropy(self):
        raise NotImplementedError


def test_what_the_critic_returns():
    z = vaereg.gaussian(torch.zeros(4, 6))
    c = vaereg.categorical(torch.zeros(4, 3), 0.5)
    both = {"z": z, "c": c}
    message = (
        r"mean and a log-variance .* the 3 numbers a row of continuous code 'z', shape \(4, 6\)"
    )
    refuses(ValueError, message + r", got \(4, 3\)", "z", z, nn.Linear(2, 3))
    message = r"of the shape of the critic's logits, \(4, 6\), got \(4, 3\)"
    refuses(ValueError, message, "z", c, nn.Linear(2, 6))
    refuses(ValueError, message + "; a tensor is a label", "z", c.value, nn.Linear(2, 6))
    message = r"expected 6 \+ 3 numbers a row from the critic for code 'z\+c'.*shape \(4, 6\)"
    refuses(ValueError, message, ("z", "c"), both, nn.Linear(2, 6))
    gaussian = Formula(lambda x: Normal(torch.zeros(4, 3), 1.0))
    refuses(TypeError, r"an entry|one entry for each part", ("z", "c"), both, gaussian)
    refuses(TypeError, "logits or a categorical distribution .* 'z', got Normal", "z", c, gaussian)
    classes = Formula(lambda x: Categorical(logits=torch.zeros(4, 3)))
    refuses(TypeError, "a continuous distribution .* 'z', got Categorical", "z", z, classes)
    narrow = Formula(lambda x: Normal(torch.zeros(4, 2), 1.0))
    refuses(
        ValueError, r"shape of code 'z', \(4, 3\), from the critic, got \(4, 2\)", "z", z, narrow
    )
    one = Formula(lambda x: (torch.zeros(4, 6),))
    refuses(ValueError, r"each part of code 'z\+c', 2, got 1", ("z", "c"), both, one)
    refuses(TypeError, "a sequence of these from the critic, got dict", "z", z, Formula(dict))
    text = Formula(lambda x: ("text",))
    refuses(TypeError, "from the critic for code 'z', got str", "z", z, text)
    # One distribution for a joint of continuous parts.
    joint = Formula(lambda x: MultivariateNormal(torch.zeros(4, 5), torch.eye(5)))
    batch = {"z": z, "w": vaereg.gaussian(torch.zeros(4, 4)), "x": X}
    term = vaereg.VariationalMI(("z", "w"), given="x", critic=joint, entropy="none")
    value = torch.cat((z.value, batch["w"].value), 1)
    torch.testing.assert_close(term(batch), Normal(0.0, 1.0).log_prob(value).sum(1).mean())


def test_shapes_and_ranges():
    z = vaereg.gaussian(torch.zeros(4, 6))
    off = vaereg.Code(torch.zeros(4, 2), z.q, z.p)
    message = r"code 'z' of the shape of its posterior, \(4, 3\), got \(4, 2\)"
    refuses(ValueError, message, "z", off, nn.Linear(2, 4))
    c = vaereg.categorical(torch.zeros(4, 3), 0.5)
    message = r"discrete code 'z\[:2\]' of shape \(B, C\) as a whole.*got \(4, 2\)"
    refuses(ValueError, message, "z[:2]", c, nn.Linear(2, 2))
    batch = {"z": z, "c": vaereg.categorical(torch.zeros(3, 3), 0.5)}
    refuses(ValueError, "as many rows", ("z", "c"), batch, nn.Linear(2, 9))
    for ends in ((1.0, 1.0), (-90.0, 0.0), (0.0, 90.0)):
        with pytest.raises(ValueError, match=r"logvar_range of low < high in \[-80, 80\]"):
            vaereg.VariationalMI("z", given="x", critic=nn.Linear(2, 2), logvar_range=ends)


def test_a_deterministic_codes_prior_is_not_what_it_was_drawn_from():
    """Its entropy for H(v) would show 2.3 nats of a code that depends on nothing."""
    g, z = torch.randn(1000, 1), 0.1 * torch.randn(1000, 1)
    critic = Formula(lambda g: torch.cat([0 * g, 0 * g + 2 * math.log(0.1)], 1))
    prior = Normal(torch.zeros(1), 1.0)
    code = vaereg.deterministic(z, prior=prior)
    for batch in ({"z": code, "g": g}, {"z": code.detach(), "g": g}):
        with pytest.raises(TypeError, match="a draw of a prior, got a deterministic one"):
            vaereg.VariationalMI("z", "g", critic=critic)(batch)
        term = vaereg.VariationalMI("z", "g", critic=critic, entropy="none")
        assert term(batch).isfinite()
    drawn = vaereg.Code(z / 0.1, None, prior)
    assert vaereg.VariationalMI("z", "g", critic=critic)({"z": drawn, "g": g}).isfinite()


@pytest.mark.parametrize(
    "code",
    [("c", "c"), ("z[:2]", "z[1:3]"), ("z", "z[0]"), ("z[0,3]", "z[3]"), ("z[-1]", "z[-1]")],
)
def test_parts_that_overlap_are_refused(code):
    with pytest.raises(ValueError, match="parts of the code that do not overlap, got"):
        vaereg.VariationalMI(code, "x", critic=nn.Linear(3, 2))


@pytest.mark.parametrize("share", [[math.nan, 1.0], [1.5, -0.5], [[0.5, 0.5]], 1.0])
def test_probabilities_that_are_none(share):
    with pytest.raises(ValueError, match="expected probabilities"):
        vaereg.VariationalMI("y", "x", critic=nn.Linear(3, 2), probabilities=torch.tensor(share))
