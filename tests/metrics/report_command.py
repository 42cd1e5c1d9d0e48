"""A file of models, as a user of the command has one."""

MODEL = """
import numpy as np
import torch
import vaereg
from torch import nn

SEEN = []


class Model:
    def encode(self, x, **observed):
        SEEN.append((x, observed))
        return {"z": vaereg.gaussian(x, std=0.5 + 0 * x)}

    def decode(self, values, **observed):
        return values["z"]


def alone():
    return Model()


def pair():
    return Model(), torch.rand(30, 4)


def mapping():
    return {
        "model": Model(), "x": np.random.default_rng(0).random((30, 4)), "title": "Mine",
        "factors": np.arange(30) % 3, "factor_names": ["shape"], "trees": 2,
        "image_shape": (2, 2), "y": np.arange(30.0)[:, None], "rows": 25, "mode": "fast",
    }


def three():
    return Model(), torch.rand(30, 4), 1


def without():
    return {"x": torch.rand(30, 4)}


def vae():
    torch.manual_seed(0)
    return vaereg.VAE(
        nn.Linear(4, 4), nn.Linear(2, 4), vaereg.Objective(kl=vaereg.KL("z"))
    ), torch.rand(60, 4)


def nothing_returned():
    pair()


def swapped():
    return torch.rand(30, 4), Model()


def no_data():
    return Model(), None


def absent_key():
    return {}["weights"]


class Convolved(Model):
    def encode(self, x):
        return {"z": vaereg.gaussian(self.net(x).flatten(1), std=torch.ones(len(x), 64))}


def channels_last():
    model = Convolved()
    model.net = nn.Conv2d(3, 1, 1)
    return model, torch.rand(30, 8, 8, 3)


def layers_only():
    encoder = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten())
    return vaereg.VAE(
        encoder, nn.Linear(2, 4), vaereg.Objective(kl=vaereg.KL("z"))
    ), np.random.rand(30, 8, 8, 3).astype("float32")


def wants(argument):
    return Model()


def broken():
    raise ValueError("two\\nlines")


number = 3
"""
