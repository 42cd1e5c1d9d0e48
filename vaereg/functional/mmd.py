r"""The maximum mean discrepancy: the distance of two laws' mean embeddings, from samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor
from torch.distributions import Distribution

__all__ = ["Kernel", "default_scales", "mmd", "prior_draws", "scale_factors"]

Kernel: TypeAlias = Literal["imq", "rbf"]

# Of the expected squared distance of two draws; those of the authors' code of WAE.
_IMQ = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
# Of half of it: exponents of 4, 2, 1 and 1/2 at that distance.
_RBF = (0.25, 0.5, 1.0, 2.0)


def default_scales(kernel: Kernel, variance: Tensor) -> Tensor:
    r"""Squared lengths that cover the distances between draws of a law.

    .. math:: \text{imq: } s = 2 D \sigma^2 \cdot \{.1, .2, .5, 1, 2, 5, 10\}, \qquad
        \text{rbf: } s = D \sigma^2 \cdot \{\tfrac14, \tfrac12, 1, 2\}

    :math:`2 D \sigma^2` is the expected squared distance of two draws of a law with a variance of
    :math:`\sigma^2` in each of :math:`D` coordinates. With ``imq`` these are the scales of WAE.
    With ``rbf`` they are our choice: the kernel is :math:`e^{-4}, e^{-2}, e^{-1}` and
    :math:`e^{-1/2}` at that distance. A single bandwidth of fixed size, whatever :math:`D`, makes
    every pair of rows equally far.

    Args:
        kernel: ``"imq"`` or ``"rbf"``.
        variance: The total variance :math:`D \sigma^2`, a scalar in squared units of z.

    Returns:
        The scales :math:`s`, in squared units of z.

    Raises:
        ValueError: If the kernel is unknown.

    References:
        | Wasserstein Auto-Encoders (Tolstikhin et al., 2018), section 4 (one scale,
          :math:`2 D \sigma^2`), and its published code (seven).
        | https://arxiv.org/abs/1711.01558

    Example:
        >>> default_scales("rbf", torch.tensor(8.0))
        tensor([ 2.,  4.,  8., 16.])
    """
    scales = torch.stack([variance * f for f in scale_factors(kernel)])
    # A law without variance has no length of its own, and 0 / 0 would be nan.
    return scales.clamp(min=torch.finfo(scales.dtype).eps)


def scale_factors(kernel: Kernel) -> tuple[float, ...]:
    """The default scales of a total variance of 1."""
    _check_kernel(kernel)
    return tuple(2.0 * f for f in _IMQ) if kernel == "imq" else _RBF


def mmd(
    x: Tensor,
    y: Tensor,
    *,
    scales: Sequence[float] | Tensor,
    kernel: Kernel = "rbf",
    unbiased: bool = True,
    paired: bool = False,
) -> Tensor:
    r"""The squared maximum mean discrepancy of two samples.

    .. math:: \mathrm{MMD}^2 = E\, k(x, x') + E\, k(y, y') - 2 E\, k(x, y), \qquad
        k(x, y) = \begin{cases}
            \sum_s e^{-\| x - y \|^2 / 2 s} & \text{rbf} \\
            \sum_s s / (s + \| x - y \|^2) & \text{imq}
        \end{cases}

    Unbiased, the first two means leave out :math:`i = j` (a U-statistic, negative more often than
    not where the two laws agree); biased, they include it (a V-statistic, never negative but for
    rounding). Of :math:`n` and :math:`m` rows they differ by

    .. math:: V - U = \tfrac1n \big( k(0) - \bar k_{xx} \big)
        + \tfrac1m \big( k(0) - \bar k_{yy} \big)

    with the means :math:`\bar k` over :math:`i \ne j`. Squared distances come from one matrix
    product of the rows less their joint mean, and no ``(n, m, D)`` tensor is made. In float32 they
    are right to about :math:`10^{-6}` of the squared distances from that mean (not where float32
    products are rounded, as by TF32).

    Args:
        x: ``(n, *event)``, in units of z.
        y: ``(m, *event)``.
        scales: :math:`s > 0`, squared lengths; kernels are summed over them. Those of a tensor
            ``(S,)`` are not checked, which would be a device transfer; they may have a gradient,
            and cost more.
        kernel: ``"rbf"`` or ``"imq"``.
        unbiased: Whether to leave out :math:`i = j`.
        paired: Whether row :math:`x_i` depends on :math:`y_i`, as where both come from one label.
            An unbiased estimate then leaves :math:`k(x_i, y_i)` out of the last mean.

    Returns:
        A scalar without unit, between 0 and twice the number of scales but for the noise of the
        unbiased form. That is 0 with zero gradient where a sample has one row only.

    Raises:
        TypeError: If a sample is no floating-point tensor.
        ValueError: If the samples have no rows or differ in the event's shape, a scale is not
            positive, the kernel is unknown, or paired samples differ in rows.

    References:
        | A Kernel Two-Sample Test (Gretton et al., 2012), eqs 3 (unbiased), 4 (paired) and 5
          (biased). https://jmlr.org/papers/v13/gretton12a.html

    Example:
        >>> x, y = torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [1.0]])
        >>> mmd(x, y, kernel="imq", scales=[1.0]).item()  # 1 + 1 - 2 / (1 + 1)
        1.0
    """
    x, y = _samples(x, y, paired=paired and unbiased)
    _check_kernel(kernel)
    sizes = _scales(scales, x)
    n, m = x.shape[0], y.shape[0]
    if unbiased and min(n, m) < 2:
        return ((x * 0.0).sum() + (y * 0.0).sum()).sum()
    rows = torch.cat((x, y))
    # Far from the origin the products would cancel; distances have no gradient in the centre.
    rows = rows - rows.detach().mean(0)
    norms = rows.square().sum(1)
    with torch.autocast(rows.device.type, enabled=False):
        table = norms.unsqueeze(1) + norms - 2.0 * rows @ rows.mT  # (n + m, n + m)
    # Not below 0 by rounding; a clamp would drop the gradient there, and with it the second.
    table = table - table.detach().clamp(max=0.0)
    if isinstance(scales, Tensor):  # may have a gradient of their own, or be mapped over
        values = torch.stack([_parts(table, s, kernel)[0] for s in sizes]).sum(0)
    else:
        values, _ = cast(Any, _Kernel.apply(table, sizes, kernel))
    total = (values * _weights(values, n, unbiased=unbiased, paired=paired)).sum()
    # k(0) is 1 for each scale, where the table's own diagonal is 0 up to rounding.
    return total if unbiased else total + (1 / n + 1 / m) * len(sizes)


def _weights(like: Tensor, n: int, *, unbiased: bool, paired: bool) -> Tensor:
    """What each pair of the joint table counts in the sum of the three means, its diagonal 0."""
    m = like.shape[0] - n
    left_out = int(unbiased and paired)
    weights = torch.full_like(like, -1.0 / (n * (m - left_out)), requires_grad=False)
    weights[:n, :n] = 1.0 / (n * (n - unbiased))
    weights[n:, n:] = 1.0 / (m * (m - unbiased))
    weights.diagonal().zero_()
    if left_out:
        weights[:n, n:].diagonal().zero_()
        weights[n:, :n].diagonal().zero_()
    return weights


def _samples(x: Tensor, y: Tensor, *, paired: bool) -> tuple[Tensor, Tensor]:
    """Both samples as ``(rows, D)``, in float32 at least."""
    for name, tensor in (("x", x), ("y", y)):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():  # pyright: ignore[reportUnnecessaryIsInstance]
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__  # pyright: ignore
            raise TypeError(f"mmd: expected {name} to be a floating-point tensor, got {got}")
        if tensor.ndim < 2 or not tensor.shape[0]:
            raise ValueError(
                f"mmd: expected {name} of shape (rows, *event) with a row at least, got "
                f"{tuple(tensor.shape)}"
            )
    if x.shape[1:] != y.shape[1:] or (paired and x.shape[0] != y.shape[0]):
        rows = "paired rows" if paired else "rows"
        raise ValueError(
            f"mmd: expected x and y with {rows} of one shape, got {tuple(x.shape)} and "
            f"{tuple(y.shape)}"
        )
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    return x.to(dtype).flatten(1), y.to(dtype).flatten(1)


def _check_kernel(kernel: str) -> None:
    if kernel not in ("imq", "rbf"):
        raise ValueError(f"kernel: expected rbf or imq, got {kernel!r}")


def _scales(scales: Sequence[float] | Tensor, like: Tensor) -> Sequence[float] | Sequence[Tensor]:
    if isinstance(scales, Tensor):
        if scales.ndim != 1 or not scales.shape[0]:
            raise ValueError(f"scales: expected shape (S,), got {tuple(scales.shape)}")
        return scales.to(like).unbind()
    if not scales or not all(s > 0.0 for s in scales):
        raise ValueError(f"scales: expected squared lengths > 0, got {list(scales)}")
    return scales


def _parts(squared: Tensor, s: float | Tensor, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """The kernel of one scale, and its derivative."""
    if kernel == "imq":
        part = s / (squared + s)
        return part, part.square() / -s
    part = (squared * (-0.5 / s)).exp()
    return part, part * (-0.5 / s)


class _Kernel(torch.autograd.Function):
    """The kernel summed over the scales; its backward pass keeps one derivative for all."""

    generate_vmap_rule = True

    @staticmethod
    def forward(squared: Tensor, scales: Any, kernel: Kernel) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        total, slope = torch.zeros_like(squared), torch.zeros_like(squared)
        for s in scales:
            part, derivative = _parts(squared, s, kernel)
            total += part
            slope += derivative
        return total, slope

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        squared, ctx.scales, ctx.kernel = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(squared, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        squared, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            slope = torch.stack([_parts(squared, s, ctx.kernel)[1] for s in ctx.scales]).sum(0)
        return grad * slope, None, None


def prior_draws(prior: Distribution | None, value: Tensor, code: str = "code") -> Tensor:
    r"""A draw of the prior for each row of a code, :math:`z_i \sim p(z)` or :math:`p(z \mid y_i)`.

    Args:
        prior: Of the value's batch and event shape together, or of its event shape alone or with
            one row; then it is shared by all rows.
        value: The code's value, ``(B, *event)``; read for its shape and dtype only.
        code: The code's name, for errors.

    Returns:
        The shape and dtype of ``value``; with the gradient of the prior's parameters where the
        prior can be reparameterised.

    Raises:
        TypeError: If there is no prior.
        ValueError: If the prior's shape is none of these.

    Example:
        >>> from torch.distributions import Normal
        >>> prior_draws(Normal(torch.zeros(3), torch.ones(3)), torch.zeros(8, 3)).shape
        torch.Size([8, 3])
    """
    if prior is None:
        raise TypeError(
            f"{code}: expected a Code with a prior p (see vaereg.gaussian, or "
            "vaereg.deterministic(value, prior=...)), got none; a detached code keeps priors of "
            "known families only"
        )
    shape = tuple(prior.batch_shape + prior.event_shape)
    event, rows = tuple(value.shape[1:]), value.shape[:1]
    draw = prior.rsample if prior.has_rsample else prior.sample
    if shape == tuple(value.shape):
        return draw().to(value.dtype)
    if shape == event:
        return draw(rows).to(value.dtype)
    if shape == (1, *event):
        return draw(rows).squeeze(1).to(value.dtype)
    raise ValueError(
        f"{code}: expected a prior of shape {event} or {tuple(value.shape)}, got {shape}"
    )
