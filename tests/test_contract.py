"""Every regularizer, in several configurations, through the shipped contract."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vaereg
from vaereg import critics
from vaereg.testing import RegularizerContract


def gaussian_leaves(rows, width, dtype, generator):
    mean = torch.randn(rows, *width, dtype=dtype, generator=generator).requires_grad_()
    logvar = (0.3 * torch.randn(rows, *width, dtype=dtype, generator=generator)).requires_grad_()
    return mean, logvar


class OneCode(RegularizerContract):
    reads_other = checks_width = False

    def batch(self, rows, *, dtype, generator):
        mean, logvar = gaussian_leaves(rows, (3,), dtype, generator)
        return {"z": vaereg.gaussian((mean, logvar))}, [mean, logvar]

    def image_case(self, rows, *, dtype, generator):
        mean, logvar = gaussian_leaves(rows, (2, 3, 3), dtype, generator)
        return self.make(), {"z": vaereg.gaussian((mean, logvar))}, [mean, logvar]


class TestKL(OneCode):
    def make(self):
        return vaereg.KL("z")


class TestKLPart(OneCode):
    def make(self):
        return vaereg.KL("z[1:]")


class TestKLOfTwoCodes(OneCode):
    """A Gaussian with a conditional prior and a relaxed categorical."""

    image_case = RegularizerContract.image_case

    def make(self):
        return vaereg.KL(("z", "c"))

    def batch(self, rows, *, dtype, generator):
        mean, logvar = gaussian_leaves(rows, (3,), dtype, generator)
        logits = torch.randn(rows, 4, dtype=dtype, generator=generator).requires_grad_()
        center = torch.randn(rows, 3, dtype=dtype, generator=generator).requires_grad_()
        prior = torch.distributions.Normal(center, torch.ones_like(center), validate_args=False)
        z = vaereg.gaussian((mean, logvar), prior=prior)
        return {"z": z, "c": vaereg.categorical(logits, 0.5)}, [mean, logvar, logits, center]


class TestFreeBitsDimension(OneCode):
    def make(self):
        return vaereg.FreeBits("z", 0.05)


class TestFreeBitsSample(OneCode):
    def make(self):
        return vaereg.FreeBits("z", 0.05, per="sample")


class TestFreeBitsTotal(OneCode):
    def make(self):
        return vaereg.FreeBits("z", 0.05, per="total")


class TestCapacityBatch(OneCode):
    def make(self):
        return vaereg.Capacity("z", vaereg.schedules.linear(0.1, 5.0, steps=10))


class TestCapacitySample(OneCode):
    def make(self):
        return vaereg.Capacity("z", 0.7, per="sample")


class TestConstraintOfKL(OneCode):
    def make(self):
        return vaereg.Constraint(vaereg.KL("z"), at_most=0.2)


class TestConstraintOfCallable(OneCode):
    def make(self):
        return vaereg.Constraint(second_moment, at_most=0.2, initial=3.0)


def second_moment(batch):
    return batch["z"].value.square().flatten(1).sum(1).mean()


class CodeAndLabel(RegularizerContract):
    classes = 2

    def batch(self, rows, *, dtype, generator):
        mean, logvar = gaussian_leaves(rows, (3,), dtype, generator)
        y = vaereg.labels(torch.arange(rows) % self.classes, self.classes).to(dtype)
        return {"z": vaereg.gaussian((mean, logvar)), "y": y}, [mean, logvar]


class TwoCodes(RegularizerContract):
    def batch(self, rows, *, dtype, generator):
        mean, logvar = gaussian_leaves(rows, (3,), dtype, generator)
        other = torch.randn(rows, 2, dtype=dtype, generator=generator).requires_grad_()
        batch = {"z": vaereg.gaussian((mean, logvar)), "w": vaereg.deterministic(other)}
        return batch, [mean, logvar, other]


class PairImages:
    def image_case(self, rows, *, dtype, generator):
        mean, logvar = gaussian_leaves(rows, (2, 3, 3), dtype, generator)
        y = vaereg.labels(torch.arange(rows) % 2, 2).to(dtype)
        critic = critics.mlp(18 + 2, 1, width=8)
        batch = {"z": vaereg.gaussian((mean, logvar)), "y": y}
        return self.kind("z", "y", critic=critic), batch, [mean, logvar]


class TestMINE(PairImages, CodeAndLabel):
    kind = vaereg.MINE

    def make(self):
        return vaereg.MINE("z", "y", critic=critics.mlp(5, 1, width=8))


class TestMINENaive(CodeAndLabel):
    def make(self):
        return vaereg.MINE("z", "y", critic=critics.mlp(5, 1, width=8), decay=0.0)


class TestMINEOfTwoCodes(TwoCodes):
    def make(self):
        return vaereg.MINE("z", "w", critic=critics.mlp(5, 1, width=8, layer_norm=True))


class TestMINEOfJointAndPart(TwoCodes):
    checks_width = False  # a part of z stays as wide when z grows

    def make(self):
        return vaereg.MINE("z[:2]", "w", critic=critics.mlp(4, 1, width=8, spectral_norm=True))


class TestMINESeparable(TwoCodes):
    def make(self):
        return vaereg.MINE("z", "w", critic=critics.separable(3, 2, embedding=4, width=8))


class TestJSD(PairImages, CodeAndLabel):
    kind = vaereg.JSD

    def make(self):
        return vaereg.JSD("z", "y", critic=critics.mlp(5, 1, width=8))


class TestJSDSeparable(TwoCodes):
    def make(self):
        return vaereg.JSD("z", "w", critic=critics.separable(3, 2, embedding=4, width=8))


class Bilinear(nn.Module):
    """A critic of two arguments."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(2, 3)

    def forward(self, z, w):
        return (z * self.map(w)).sum(1)


class TestJSDPairCritic(TwoCodes):
    checks_width = False  # a critic of unknown width

    def make(self):
        return vaereg.JSD("z", "w", critic=Bilinear())


class TestConstraintOfMINE(CodeAndLabel):
    def make(self):
        return vaereg.Constraint(
            vaereg.MINE("z", "y", critic=critics.mlp(5, 1, width=8)), at_most=0.01
        )


class Classifier(CodeAndLabel):
    reads_other = False
    loss = "entropy"

    def make(self):
        critic = critics.mlp(3, self.classes, width=8, depth=1)
        return vaereg.AdversarialClassifier("z", "y", critic=critic, loss=self.loss)

    def image_case(self, rows, *, dtype, generator):
        mean, logvar = gaussian_leaves(rows, (2, 3, 3), dtype, generator)
        y = vaereg.labels(torch.arange(rows) % 2, 2).to(dtype)
        term = vaereg.AdversarialClassifier("z", "y", critic=nn.Linear(18, 2), loss=self.loss)
        return term, {"z": vaereg.gaussian((mean, logvar)), "y": y}, [mean, logvar]


class TestClassifierEntropy(Classifier):
    pass


class TestClassifierUniform(Classifier):
    loss = "uniform"


class TestClassifierCrossEntropy(Classifier):
    loss = "cross_entropy"


class TestMINEAllPairs(TwoCodes):
    """All pairs of a critic that has no ``all_pairs``."""

    def make(self):
        return vaereg.MINE("z", "w", critic=critics.mlp(5, 1, width=8), pairs="all")


class TestMINEShift(TwoCodes):
    """One product row of a critic that has ``all_pairs``."""

    def make(self):
        critic = critics.separable(3, 2, embedding=4, width=8, spectral_norm=True)
        return vaereg.MINE("z", "w", critic=critic, pairs="shift")


class TestJSDConcatenatedSpectral(TwoCodes):
    def make(self):
        critic = critics.concatenated(3, 2, width=8, spectral_norm=True)
        return vaereg.JSD("z", "w", critic=critic)


class TestJSDAllPairsOfPairCritic(TwoCodes):
    checks_width = False

    def make(self):
        return vaereg.JSD("z", "w", critic=Bilinear(), pairs="all")


class TestNWJ(PairImages, CodeAndLabel):
    kind = vaereg.NWJ

    def make(self):
        return vaereg.NWJ("z", "y", critic=critics.mlp(5, 1, width=8))


class TestNWJSeparable(TwoCodes):
    def make(self):
        return vaereg.NWJ("z", "w", critic=critics.separable(3, 2, embedding=4, width=8))


class TestNWJBeyondTheKnee(TwoCodes):
    def make(self):
        return vaereg.NWJ("z", "w", critic=critics.mlp(5, 1, width=8), knee=1.0, pairs="all")


class TestInfoNCE(PairImages, CodeAndLabel):
    kind = vaereg.InfoNCE

    def make(self):
        return vaereg.InfoNCE("z", "y", critic=critics.mlp(5, 1, width=8))


class TestInfoNCESeparable(TwoCodes):
    def make(self):
        critic = critics.separable(3, 2, embedding=4, width=8, layer_norm=True)
        return vaereg.InfoNCE("z", "w", critic=critic)


class TestInfoNCEConcatenatedSpectral(TwoCodes):
    def make(self):
        critic = critics.concatenated(3, 2, width=8, activation="gelu", spectral_norm=True)
        return vaereg.InfoNCE("z", "w", critic=critic)


class TestSMILE(PairImages, CodeAndLabel):
    kind = vaereg.SMILE

    def make(self):
        return vaereg.SMILE("z", "y", critic=critics.mlp(5, 1, width=8))


class TestSMILEConcatenated(TwoCodes):
    def make(self):
        return vaereg.SMILE("z", "w", critic=critics.concatenated(3, 2, width=8), clip=1.0)


class TestSMILEShiftSpectral(TwoCodes):
    def make(self):
        critic = critics.mlp(5, 1, width=8, spectral_norm=True)
        return vaereg.SMILE("z", "w", critic=critic)


class TestCLUBGaussian(TwoCodes):
    def make(self):
        return vaereg.CLUB("z", "w", critic=critics.mlp(3, 4, width=8))

    def image_case(self, rows, *, dtype, generator):
        mean, logvar = gaussian_leaves(rows, (2, 3, 3), dtype, generator)
        other = torch.randn(rows, 1, 2, 2, dtype=dtype, generator=generator).requires_grad_()
        batch = {"z": vaereg.gaussian((mean, logvar)), "w": vaereg.deterministic(other)}
        return vaereg.CLUB("z", "w", critic=nn.Linear(18, 8)), batch, [mean, logvar, other]


class TestCLUBGaussianSpectralAndNarrow(TwoCodes):
    def make(self):
        critic = critics.mlp(3, 4, width=8, spectral_norm=True)
        return vaereg.CLUB("z", "w", critic=critic, logvar_range=(-0.1, 0.1))


class Convolution(nn.Module):
    """A critic of an image, as it is."""

    def __init__(self, outputs):
        super().__init__()
        self.map = nn.Conv2d(2, outputs, 3)

    def forward(self, x):
        return self.map(x).flatten(1)


class TestCLUBCategorical(CodeAndLabel):
    def make(self):
        critic = critics.mlp(3, self.classes, width=8)
        return vaereg.CLUB("z", "y", critic=critic, family="categorical")

    def image_case(self, rows, *, dtype, generator):
        mean, logvar = gaussian_leaves(rows, (2, 3, 3), dtype, generator)
        y = vaereg.labels(torch.arange(rows) % 2, 2).to(dtype)
        term = vaereg.CLUB("z", "y", critic=Convolution(2), family="categorical")
        return term, {"z": vaereg.gaussian((mean, logvar)), "y": y}, [mean, logvar]


class TestVariationalMI(CodeAndLabel):
    reads_other = False
    options = {}  # noqa: RUF012

    def make(self):
        critic = critics.mlp(3, self.classes, width=8)
        return vaereg.VariationalMI("y", given="z", critic=critic, **self.options)

    def image_case(self, rows, *, dtype, generator):
        mean, logvar = gaussian_leaves(rows, (2, 3, 3), dtype, generator)
        y = vaereg.labels(torch.arange(rows) % 2, 2).to(dtype)
        term = vaereg.VariationalMI("y", given="z", critic=Convolution(2), **self.options)
        return term, {"z": vaereg.gaussian((mean, logvar)), "y": y}, [mean, logvar]


class TestVariationalMIWithoutEntropy(TestVariationalMI):
    options = {"entropy": "none"}  # noqa: RUF012


class TestVariationalMIKnownProbabilities(TestVariationalMI):
    options = {"probabilities": torch.tensor([0.3, 0.7])}  # noqa: RUF012


class RelaxedCode(RegularizerContract):
    """A code with an exact categorical posterior, and an image made of it."""

    reads_other = False
    entropy = "detached"

    def make(self):
        critic = critics.mlp(5, 3, width=8, spectral_norm=True)
        return vaereg.VariationalMI("c", given="x", critic=critic, entropy=self.entropy)

    def batch(self, rows, *, dtype, generator):
        logits = torch.randn(rows, 3, dtype=dtype, generator=generator).requires_grad_()
        x = torch.randn(rows, 5, dtype=dtype, generator=generator).requires_grad_()
        return {"c": vaereg.categorical(logits, 0.5), "x": x}, [logits, x]


class TestVariationalMIOfCode(RelaxedCode):
    pass


class TestVariationalMIOfCodeTrainedEntropy(RelaxedCode):
    entropy = "trained"


class MissingLabels(Classifier):
    """Every other label is missing, the first among them: a batch of one has no labelled row."""

    classes = 3

    def batch(self, rows, *, dtype, generator):
        batch, leaves = super().batch(rows, dtype=dtype, generator=generator)
        y = torch.where(torch.arange(rows) % 2 == 0, -1, torch.arange(rows) % self.classes)
        return {**batch, "y": vaereg.labels(y, self.classes).to(dtype)}, leaves


class TestVariationalMIMissing(MissingLabels):
    def make(self):
        return vaereg.VariationalMI("y", given="z", critic=critics.mlp(3, 3, width=8))

    image_case = TestVariationalMI.image_case
    options = {}  # noqa: RUF012


class TestCLUBMissing(MissingLabels):
    reads_other = True

    def make(self):
        critic = critics.mlp(3, 3, width=8)
        return vaereg.CLUB("z", "y", critic=critic, family="categorical")

    image_case = TestCLUBCategorical.image_case


class TestClassifierMissing(MissingLabels):
    pass


class TestClassifierMissingUniform(MissingLabels):
    loss = "uniform"


class TestClassifierMissingCrossEntropy(MissingLabels):
    loss = "cross_entropy"


class TestSecondMoment(OneCode):
    """A regularizer as a user would write it."""

    def make(self):
        class SecondMoment(vaereg.Regularizer):
            def forward(self, batch, *, other=None, step=0):
                return self.variables[0].values(batch).square().flatten(1).sum(1).mean()

        return SecondMoment("z")


# ---- the contract finds what it is meant to find


class Leaky(vaereg.MINE):
    """A critic that is not frozen in ``forward``."""

    def forward(self, batch, *, other=None, step=0):
        return -super().critic_loss(batch)


class Attached(vaereg.AdversarialClassifier):
    """A critic loss that reaches the encoder."""

    def critic_loss(self, batch, *, other=None, step=0):
        log_q, y = self._read(self.critic, batch, freeze=False)
        return -self._labelled_mean((y * log_q).sum(1), y)


class Synchronising(vaereg.KL):
    def forward(self, batch, *, other=None, step=0):
        value = super().forward(batch)
        return value + 1.0 if value.item() > 100.0 else value


def broken(kind, **keywords):
    case = CodeAndLabel()
    case.make = lambda: kind("z", "y", **keywords)
    return case


def test_contract_finds_a_critic_that_is_not_frozen():
    case = broken(Leaky, critic=critics.mlp(5, 1, width=8))
    with pytest.raises(AssertionError):
        case.test_forward_leaves_the_critic_alone()
    with pytest.raises(AssertionError, match="moved"):
        case.test_state_moves_in_training_only.__func__(_InTraining(case))


class _InTraining:
    """The case with terms that stay in training mode, as if ``eval`` were ignored."""

    def __init__(self, case):
        self.case = case

    def _case(self):
        term, batch, leaves = self.case._case()
        term.eval = lambda: term
        return term, batch, leaves


def test_contract_finds_a_critic_loss_that_reaches_the_encoder():
    case = broken(Attached, critic=critics.mlp(3, 2, width=8))
    with pytest.raises(AssertionError):
        case.test_critic_loss_leaves_the_rest_alone()


def test_contract_finds_a_synchronisation():
    case = OneCode()
    case.make = lambda: Synchronising("z")
    with pytest.raises(AssertionError, match="_local_scalar_dense"):
        case.test_no_synchronisation()
