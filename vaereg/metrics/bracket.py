r"""How much a code knows of the data: its mutual information between two bounds."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from vaereg._names import Part, parse
from vaereg.metrics._bracket import MIBracket, bracket
from vaereg.metrics._encoding import Batches, device_of, encode, given
from vaereg.metrics._fit import Budget
from vaereg.metrics._posteriors import read
from vaereg.metrics._reader import Maker, Target, log_likelihood

__all__ = ["MIBracket", "mi_bracket"]

_MINIMUM = 54  # 8 rows in the smallest part of the default split


def mi_bracket(
    source: Any,
    x: Tensor,
    *,
    code: str | tuple[str, ...] = "z",
    decoded: Tensor | None = None,
    critic: Maker | nn.Module | None = None,
    draws: int = 8,
    seed: int = 0,
    split: Sequence[float] = (0.6, 0.15, 0.25),
    epochs: int = 100,
    batch_size: int = 256,
    lr: float = 1e-3,
    weight_decay: float = 1e-2,
    patience: int = 10,
    progress: bool = False,
    **observed: Any,
) -> MIBracket:
    r"""The mutual information of code and data of a fixed VAE, between two bounds.

    .. math::
        H(v) + E_x E_{q(v \mid x)} \log Q(v \mid x) \;\le\; I_q(v; x) = H(v) - E_x H(v \mid x)
        \;\le\; E_x \mathrm{KL}\big(q(v \mid x) \,\|\, p(v)\big)

    :math:`Q` is a fresh network that is fitted on one part of the rows, stopped early on a second,
    and read on a third that neither has seen. It falls short by :math:`E\, \mathrm{KL}(q(v \mid x)
    \| Q(v \mid x))`, and the rate is too large by :math:`\mathrm{KL}(q(v) \| p(v))`: the bounds
    meet where :math:`Q` has learned the posterior and the prior is the aggregated posterior.

    Beside them stands a different quantity, the same bound of what the decoder makes of a *draw*
    of the code:

    .. math:: H(v) + E\, \log Q'(v \mid x') \le I(v; x')

    The KL rate does not bound it: an encoder that ignores the data has rate 0, and a decoder that
    prints the code has all of :math:`H(v)`. Of a continuous code nothing bounds it. Here
    :math:`x'` is what ``decode`` returns for draws of all codes, which for :class:`vaereg.VAE` is
    the likelihood's mean.

    All values are means over the held-out rows, with expectations over the posterior in closed
    form but for the logarithm of the aggregated posterior. Of a categorical code that is the mean
    of the held-out rows' posteriors, in closed form too, so that lower :math:`\le` exact
    :math:`\le` upper holds without noise. With a Gaussian part it is :math:`q_N(v) = \frac1N
    \sum_j q(v \mid x_j)` over all rows given, own included, read at ``draws`` of each held-out
    row. As :math:`H(q_N) \le H(v)` in expectation, lower bounds remain such for the population;
    but :math:`N` rows show no more than :math:`\log N` nats: of a code with more, ``lower`` is
    loose and ``exact`` is near its ceiling.

    Args:
        source: A :class:`vaereg.VAE`, or anything with ``encode(x, **observed)`` that gives codes
            by name and, for :math:`I(v; x')`, ``decode(values, **observed)``. A module is read in
            evaluation mode, which is restored. Or the codes of all rows by name, or one
            :class:`vaereg.Code`.
        x: The data, ``(N, *event)``, at least 54 rows. Rows that the model was trained on give
            its information on those; held-out ones that on new data.
        code: A name, a part ``"z[:2]"``, or a joint ``("z", "c")`` of factorised Gaussian and
            categorical codes.
        decoded: With codes as the source, the decoder's output for their values, ``(N, *event)``.
            Values of categorical codes must then be one-hot (``hard=True``).
        critic: The network, or a factory ``(in_features, out_features)`` of one; a network is
            copied. It maps the scaled data, flattened if its first layer is a linear map, to
            logits for a categorical part, and to mean and log-variance for a Gaussian one, in
            units of the code's mean and deviation over the train rows. Default a perceptron with a
            linear map beside it.
        draws: Draws of each held-out row, in pairs of mirror images.
        seed: Seed of rows, draws and networks. Torch's own generators are left as they were.
        split: Fractions of the rows for fitting, stopping and reading.
        epochs: Largest number of passes over the train rows.
        batch_size: Rows of a step, and of a pass through the model.
        lr: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        patience: Passes without a better value on the second part before training stops.
        progress: Show a progress bar (needs tqdm).
        observed: What the model's ``encode`` and ``decode`` ask for by name; tensors are cut as
            ``x`` is. If the posterior depends on it, ``exact`` and ``upper`` are those of
            :math:`I(v; x, y)`.

    Returns:
        An :class:`MIBracket`, in nats. With a prior that differs between rows, :math:`p(v \mid
        y)`, the upper bound is taken from the mean of the priors of the rows that are not
        held out: a bound whatever their number, but a loose one where priors are narrow and rows
        few.

    Raises:
        TypeError: If the source is of no accepted kind, a code has no posterior or prior, or they
            are of a family that cannot be read.
        ValueError: If an argument is out of range, rows are too few or differ in number, a part
            does not exist, or values are not finite.
        ImportError: If ``progress`` is set and tqdm is not installed.

    References:
        | The IM Algorithm: A Variational Approach to Information Maximization (Barber and Agakov,
          2003), section 2, for the lower bound.
        | ELBO surgery (Hoffman and Johnson, 2016), for the upper one and what it exceeds by.
        | On Variational Bounds of Mutual Information (Poole et al., 2019), section 2.
          https://arxiv.org/abs/1905.06922

    Example:
        >>> import vaereg
        >>> x = torch.eye(4).repeat(100, 1)
        >>> c = vaereg.categorical(2.0 * x, temperature=1.0)  # the class, with some noise
        >>> found = mi_bracket(c, x, code="c", epochs=30)
        >>> found.lower <= found.exact <= found.upper, found.exact - found.lower < 0.05
        (True, True)
    """
    parts = parse(code, "code")
    if len({part.name for part in parts}) < len(parts):
        raise ValueError(f"code: expected each variable once, got {code!r}")
    _check(x)
    for name, number in (
        ("draws", draws), ("epochs", epochs), ("batch_size", batch_size), ("patience", patience),
    ):  # fmt: skip
        if number < 1:
            raise ValueError(f"{name}: expected at least 1, got {number}")
    if len(split) != 3 or min(split) <= 0.0 or abs(sum(split) - 1.0) > 1e-6:
        raise ValueError(f"split: expected three positive fractions that sum to 1, got {split}")
    n = len(x)
    train, stop = int(n * split[0]), int(n * split[1])
    if min(train, stop, n - train - stop) < 8:
        raise ValueError(
            f"split: expected at least 8 rows in each part, got {(train, stop, n - train - stop)}"
        )
    budget = Budget(epochs, batch_size, lr, weight_decay, patience)
    where = device_of(source, x)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(where.type, enabled=False),
        torch.random.fork_rng([where] if where.type == "cuda" else []),
    ):
        seeds = [(seed * 1_000_003 + step) % 2**63 for step in range(5)]
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seeds[0]))
        rows = order[:train], order[train : train + stop], order[train + stop :]
        _seed(where, seeds[1])
        with torch.no_grad():
            batches, decoded = _codes(source, x, parts, decoded, observed, batch_size)
            latents = [read(part, *batches) for part in parts]
        bar = _progress(epochs * (1 if decoded is None else 2)) if progress else None

        def report(value: float) -> None:
            if bar is not None:
                bar.set_postfix(stop=f"{value:.3f}")
                bar.update()

        def fit(inputs: Tensor, targets: list[Target], seed: int) -> Tensor | None:
            _seed(where, seed)
            generator = torch.Generator().manual_seed(seed + 5)
            return log_likelihood(inputs, targets, rows, critic, budget, generator, report)

        try:
            known = fit(x, [Target.of(latent.q) for latent in latents], seeds[2])
            told = None
            if decoded is not None:
                drawn = [Target.at(latent.value, latent.q) for latent in latents]
                told = fit(decoded, drawn, seeds[3])
            _seed(where, seeds[4])
            with torch.no_grad():
                return bracket(
                    latents, rows[2], draws, known, told, ", ".join(part.text for part in parts),
                    decodes=decoded is not None,
                )  # fmt: skip
        finally:
            if bar is not None:
                bar.close()


def _seed(where: torch.device, seed: int) -> None:
    # Not torch.manual_seed: it would also seed devices that are not forked.
    torch.default_generator.manual_seed(seed)
    if where.type == "cuda":
        with torch.cuda.device(where):
            torch.cuda.manual_seed(seed)


def _check(x: Tensor) -> None:
    if not isinstance(x, Tensor) or x.ndim < 2:  # pyright: ignore[reportUnnecessaryIsInstance]
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__  # pyright: ignore
        raise ValueError(f"x: expected a tensor of shape (N, *event), got {got}")
    if len(x) < _MINIMUM:
        raise ValueError(f"x: expected at least {_MINIMUM} rows, got {len(x)}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("x: expected finite values, got nan or inf")


def _codes(
    source: Any,
    x: Tensor,
    parts: Sequence[Part],
    decoded: Tensor | None,
    observed: dict[str, Any],
    size: int,
) -> tuple[Batches, Tensor | None]:
    """Codes and draws in batches, and what is decoded from the draws."""
    if not callable(getattr(source, "encode", None)):
        if observed:
            raise ValueError(
                f"observed: expected no variables beside codes, got {sorted(observed)}"
            )
        return given(source, parts, x, decoded)
    if decoded is not None:
        raise ValueError("decoded: expected None beside a model, which decodes itself")
    return encode(source, x, {part.name for part in parts}, observed, size)


def _progress(total: int) -> Any:
    try:
        return import_module("tqdm").tqdm(total=total, unit="epoch", desc="mi_bracket")
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install tqdm") from error
