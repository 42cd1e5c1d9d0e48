"""Data parallel training in two real processes against one process with the whole batch."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import vaereg
from vaereg.distributed import all_gather, average_gradients

WORLD, ROWS, N = 2, 6, 50


def data():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(WORLD * ROWS, 4, generator=g, dtype=torch.float64)
    noise = torch.randn(WORLD * ROWS, 3, generator=g, dtype=torch.float64)
    weight = torch.randn(4, 6, generator=g, dtype=torch.float64)
    return x, noise, weight


def code(x, noise, weight):
    mean, logvar = (x @ weight).chunk(2, 1)
    logvar = 0.1 * logvar
    return vaereg.gaussian((mean, logvar), value=mean + (0.5 * logvar).exp() * noise)


def terms(gather, bank):
    options = {"dataset_size": N, "gather": gather, "memory_bank": bank}
    return vaereg.Objective(
        tc=vaereg.MinibatchTC("z", **options),
        kl=(0.5, vaereg.DecomposedKL("z", mi=0.3, tc=2.0, **options)),
    )


def losses(objective, x, noise, weight, steps=2):
    """Values and gradients over steps, a memory bank filling up between them."""
    found = []
    for step in range(steps):
        w = (weight + 0.1 * step).requires_grad_()
        batch = {"z": code(x, noise, w)}
        total = objective(batch).total
        (grad,) = torch.autograd.grad(total, w)
        objective.update(batch)
        found += [total.detach(), grad]
    return found


def worker(rank, port, queue, bank):
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=WORLD)
    try:
        x, noise, weight = data()
        part = slice(rank * ROWS, (rank + 1) * ROWS)
        found = losses(terms(all_gather, bank), x[part], noise[part], weight)
        for tensor in found:  # the mean over processes, as DistributedDataParallel takes it
            dist.all_reduce(tensor)
            tensor /= WORLD

        torch.manual_seed(0)
        critic = torch.nn.Linear(7, 1).double()
        objective = vaereg.Objective(mi=vaereg.JSD("z", "x", critic=critic))
        other = {"x": x[part].flip(0)}
        batch = {"z": code(x[part], noise[part], weight), "x": x[part]}
        objective.critic_loss(batch, other=other).total.backward()
        average_gradients(objective)
        found += [p.grad for p in critic.parameters()]
        if rank == 0:
            queue.put([t.tolist() for t in found])
    finally:
        dist.destroy_process_group()


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize("bank", [0, 20])
def test_two_processes_are_one(bank):
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    mp.spawn(worker, (free_port(), queue, bank), WORLD)
    found = [torch.tensor(t, dtype=torch.float64) for t in queue.get()]

    x, noise, weight = data()
    expected = losses(terms(None, bank), x, noise, weight)
    torch.manual_seed(0)
    critic = torch.nn.Linear(7, 1).double()
    objective = vaereg.Objective(mi=vaereg.JSD("z", "x", critic=critic))
    for rank in range(WORLD):  # gradients add up in place
        part = slice(rank * ROWS, (rank + 1) * ROWS)
        batch = {"z": code(x[part], noise[part], weight), "x": x[part]}
        (objective.critic_loss(batch, other={"x": x[part].flip(0)}).total / WORLD).backward()
    expected += [p.grad for p in critic.parameters()]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_alone_nothing_is_gathered():
    x = torch.randn(3, 2, requires_grad=True)
    rows, begin = all_gather(x)
    assert rows is x and begin == 0
    critic = torch.nn.Linear(3, 1)
    objective = vaereg.Objective(mi=vaereg.JSD("a", "b", critic=critic))
    batch = {"a": torch.randn(5, 2), "b": torch.randn(5, 1)}
    objective.critic_loss(batch).total.backward()
    before = [p.grad.clone() for p in critic.parameters()]
    average_gradients(objective)
    assert all(torch.equal(p.grad, g) for p, g in zip(critic.parameters(), before, strict=True))
