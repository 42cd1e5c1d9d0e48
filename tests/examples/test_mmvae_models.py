"""The networks, priors and objectives of the MMVAE example."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.distributions import kl_divergence

import vaereg
from mmvae.models import (
    MODELS,
    PRESETS,
    Decoder,
    Encoder,
    Preset,
    Weights,
    attribute_prior,
    build,
    build_objective,
    joint_label,
    one_hot,
)

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = Preset(width=2, z=5, critic_width=7, critic_depth=2)


def labels(k, rows=8):
    """All combinations of k attributes, repeated."""
    every = torch.tensor(list(itertools.product((0, 1), repeat=k)))
    return every.repeat(math.ceil(rows / len(every)), 1)[:rows]


def shapes(module, kind):
    return [tuple(m.weight.shape) for m in module.modules() if isinstance(m, kind)]


# ---- labels and priors


def test_one_hot_and_joint_label():
    assert one_hot(torch.tensor([[0], [1]])).tolist() == [[1, 0], [0, 1]]
    y = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert one_hot(y).tolist() == [[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]]
    assert joint_label(torch.tensor([[0], [1]])).tolist() == [[1, 0], [0, 1]]
    # The first attribute counts 1, the second 2.
    assert joint_label(y).argmax(1).tolist() == [0, 2, 1, 3] and joint_label(y).sum() == 4


def test_attribute_prior_values():
    one = attribute_prior(one_hot(torch.tensor([[0], [1]])))
    assert one.batch_shape == (2,) and one.event_shape == (2,)
    assert torch.equal(one.base_dist.loc, torch.tensor([[0.0, 0.0], [3.0, 3.0]]))
    torch.testing.assert_close(one.base_dist.scale, torch.tensor([[0.1, 0.1], [1.0, 1.0]]))
    two = attribute_prior(one_hot(torch.tensor([[0, 1], [1, 0]]))).base_dist
    assert torch.equal(two.loc, torch.tensor([[0.0, 0.0, 3.0, 3.0], [3.0, 3.0, 0.0, 0.0]]))
    scale = torch.tensor([[0.1, 0.1, 1.0, 1.0], [1.0, 1.0, 0.1, 0.1]])
    torch.testing.assert_close(two.scale, scale)


# ---- networks


@pytest.mark.parametrize("k", [1, 2])
def test_the_full_preset_has_the_published_sizes(k):
    encoder, decoder = Encoder(PRESETS["full"], k), Decoder(PRESETS["full"], k)
    pairs = c = 2 * k
    assert shapes(encoder.trunk, nn.Conv2d) == [(32, 3, 4, 4), (64, 32, 4, 4), (128, 64, 4, 4)]
    assert shapes(encoder.z_branch, nn.Conv2d) == [(256, 128, 4, 4), (512, 256, 4, 4)]
    assert encoder.z_head.weight.shape == (2 * 512, 512 * 2 * 2)
    assert shapes(encoder.c_first, nn.Conv2d) == [(256, 128 + pairs, 4, 4)]
    assert shapes(encoder.c_second, nn.Conv2d) == [(256, 256 + pairs, 4, 4)]
    assert encoder.c_head.weight.shape == (2 * c, (256 + pairs) * 2 * 2)
    assert decoder.first[0].weight.shape == (512 * 2 * 2, 512 + c)
    assert shapes(decoder.blocks, nn.ConvTranspose2d) == [
        (512 + c, 256, 4, 4),
        (256 + c, 128, 4, 4),
        (128 + c, 64, 4, 4),
        (64 + c, 32, 4, 4),
    ]
    assert decoder.last.weight.shape == (32 + c, 3, 4, 4)
    for conv in (*encoder.modules(), *decoder.modules()):
        if isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)):
            assert (conv.kernel_size, conv.stride, conv.padding) == ((4, 4), (2, 2), (1, 1))
    assert len([m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]) == 7
    assert len([m for m in decoder.modules() if isinstance(m, nn.BatchNorm2d)]) == 4
    codes = encoder(torch.rand(2, 3, 64, 64), one_hot(labels(k, 2)))
    assert codes["z"].value.shape == (2, 512) and codes["c"].value.shape == (2, c)
    assert decoder(codes["z"].value, codes["c"].value).shape == (2, 3, 64, 64)


@pytest.mark.parametrize("k", [1, 2])
def test_the_full_critics_have_seven_layers_of_512(k):
    objective = build_objective("mmvae", PRESETS["full"], k, Weights())
    inputs = {"i_cy": 2 * k + 2 * k, "i_zy": 512 + 2 * k, "i_zc": 512 + 2 * k}
    for name, width in inputs.items():
        layers = shapes(objective[name].critic, nn.Linear)
        assert layers == [(512, width), *[(512, 512)] * 6, (1, 512)]
    classifier = build_objective("csvae", PRESETS["full"], k, Weights())["i_zy"].critic
    assert shapes(classifier, nn.Linear) == [(512, 512)] * 7 + [(2**k, 512)]


@pytest.mark.parametrize("k", [1, 2])
def test_the_posterior_of_c_starts_at_the_prior(k):
    # In float32 the four shares of log 0.1^2 need not sum to it exactly.
    encoder = Encoder(TINY, k)
    y = labels(k, 16)
    codes = encoder(torch.rand(16, 3, 64, 64), one_hot(y))
    kl = kl_divergence(codes["c"].q, codes["c"].p)
    assert kl.shape == (16,) and kl.abs().max() < 1e-5
    assert torch.equal(codes["c"].q.mean, 3.0 * y.repeat_interleave(2, 1))
    assert vaereg.KL("c")(codes).item() == pytest.approx(0.0, abs=1e-5)


def test_only_the_encoder_of_c_sees_the_label():
    encoder = Encoder(TINY, 2)
    nn.init.normal_(encoder.c_head.weight)  # as after training, not at the prior
    x, y = torch.rand(8, 3, 64, 64), labels(2)
    one, two = encoder(x, one_hot(y)), encoder(x, one_hot(1 - y))
    for parameter in ("mean", "stddev"):
        left, right = (getattr(codes["z"].q, parameter) for codes in (one, two))
        assert torch.equal(left, right)
        left, right = (getattr(codes["c"].q, parameter) for codes in (one, two))
        assert ((left - right).abs() > 1e-3).any(1).all()


def test_the_encoder_of_c_sees_the_image():
    encoder = Encoder(TINY, 1)
    nn.init.normal_(encoder.c_head.weight)
    y = one_hot(labels(1))
    one = encoder(torch.rand(8, 3, 64, 64), y)["c"].q.mean
    assert ((one - encoder(torch.rand(8, 3, 64, 64), y)["c"].q.mean).abs() > 1e-4).any(1).all()


def test_the_decoder_starts_without_c():
    vae = build("r-cvae", TINY, 1, Weights(), 1.0).eval()
    z, c = torch.randn(8, 5), torch.randn(8, 2)
    assert torch.equal(vae.decode({"z": z, "c": c}), vae.decode({"z": z, "c": -c}))


def test_the_decoder_sees_both_codes_and_c_in_every_layer():
    vae = build("r-cvae", TINY, 1, Weights(), 1.0).eval()
    with torch.no_grad():  # as after training
        for parameter in vae.decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    z, c = torch.randn(8, 5), torch.randn(8, 2)
    image = vae.decode({"z": z, "c": c})
    assert not torch.equal(image, vae.decode({"z": -z, "c": c}))
    assert not torch.equal(image, vae.decode({"z": z, "c": -c}))
    image.square().sum().backward()
    first, *others = vae.decoder.first[0], *(b[0] for b in vae.decoder.blocks), vae.decoder.last
    assert (first.weight.grad[:, -2:].abs().sum(0) > 0).all() and len(others) == 5
    for layer in others:
        # Constant maps of c are the last two input channels.
        assert (layer.weight.grad[-2:].abs().sum((1, 2, 3)) > 0).all()


# ---- objectives


def batch(vae, k, rows=8):
    y = labels(k, rows)
    return vae(torch.rand(rows, 3, 64, 64), y=one_hot(y), joint=joint_label(y))


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("model", MODELS)
def test_the_terms_of_each_model(model, k):
    vae = build(model, TINY, k, Weights(alpha=0.5, beta=2.0, gamma=3.0), 0.5)
    terms = {
        "r-cvae": {"kl": 1.0},
        "csvae": {"kl": 1.0, "i_zy": 2.0},
        "mmvae": {"kl": 1.0, "i_cy": -0.5, "i_zy": 2.0, "i_zc": 3.0},
    }[model]
    out = batch(vae, k)
    assert out.report.weights == terms and set(out.report.values) == set(terms)
    total = sum(w * out.report.values[name] for name, w in terms.items())
    torch.testing.assert_close(out.report.total.detach(), total)
    torch.testing.assert_close(out.loss, out.nll + out.report.total)
    assert set(out.codes) == {"z", "c"} and out.x_hat.shape == (8, 3, 64, 64)
    kl = sum(kl_divergence(code.q, code.p).mean() for code in out.codes.values())
    torch.testing.assert_close(out.report.values["kl"], kl.detach())


def test_the_likelihood_is_gaussian_with_the_pixel_standard_deviation():
    vae = build("r-cvae", TINY, 1, Weights(), 0.5)
    x = torch.rand(8, 3, 64, 64)
    y = labels(1)
    out = vae(x, y=one_hot(y), joint=joint_label(y))
    density = torch.distributions.Normal(out.x_hat, 0.5).log_prob(x)
    torch.testing.assert_close(out.nll, -density.sum((1, 2, 3)).mean())


def test_a_weight_of_zero_only_displays():
    vae = build("mmvae", TINY, 1, Weights(alpha=0.0, beta=0.0, gamma=0.0), 1.0)
    out = batch(vae, 1)
    torch.testing.assert_close(out.report.total.detach(), out.report.values["kl"])
    assert math.copysign(1.0, out.report.weights["i_cy"]) == 1.0


@pytest.mark.parametrize(
    ("own", "name", "code", "sign"),
    [("alpha", "i_cy", "c", -1.0), ("beta", "i_zy", "z", 1.0), ("gamma", "i_zc", "z", 1.0)],
)
def test_the_encoder_descends_the_penalties_and_climbs_the_reward(own, name, code, sign):
    weights = Weights(**{**dict.fromkeys(("alpha", "beta", "gamma", "kl"), 0.0), own: 2.0})
    vae = build("mmvae", TINY, 1, weights, 1.0)
    named = {"z": torch.randn(32, 5), "c": torch.randn(32, 2), "y": one_hot(labels(1, 32))}
    value = named[code].requires_grad_()
    torch.manual_seed(1)
    (slope,) = torch.autograd.grad(vae.objective(named, only=[name]).total, value)
    torch.manual_seed(1)  # the same product rows
    (expected,) = torch.autograd.grad(vae.objective[name](named), value)
    assert expected.abs().sum() > 0
    torch.testing.assert_close(slope, sign * 2.0 * expected)


def test_critic_parameters_are_counted_and_apart():
    for model, count in (("r-cvae", 0), ("csvae", 1), ("mmvae", 3)):
        vae = build(model, TINY, 1, Weights(), 1.0)
        critics = list(vae.objective.critic_parameters())
        assert len(critics) == count * 2 * (TINY.critic_depth + 1)
        main = {id(p) for p in vae.main_parameters()}
        assert main.isdisjoint(map(id, critics))
        assert len(main) + len(critics) == len(list(vae.parameters()))


def test_unknown_model():
    with pytest.raises(ValueError, match=r"model: expected one of .*got 'vae'"):
        build_objective("vae", TINY, 1, Weights())
