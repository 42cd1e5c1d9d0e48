r"""Grids of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from vaereg.plots._style import (
    TEXT,
    TITLE,
    Array,
    Floats,
    check_finite,
    label_texts,
    to_array,
)


def attribute_grid(
    images: Array,
    *,
    rows: Sequence[object] | None = None,
    columns: Sequence[object] | None = None,
    row_name: str | None = None,
    column_name: str | None = None,
    title: str | None = None,
    scale: int | None = None,
) -> Figure:
    r"""A grid of images with labelled rows and columns, e.g. decodings over a grid of codes.

    The figure holds one axes with one image, the mosaic, each pixel of which is drawn as
    ``scale`` × ``scale`` pixels of the figure: nothing is interpolated.

    Args:
        images: ``(R, C, H, W, 3)`` or ``(R, C, 3, H, W)`` colour, or ``(R, C, H, W)`` grey (one
            channel of its own is fine as well); where both readings fit, the channel is last.
            Floating-point values are clipped to [0, 1]; integers count from 0 to 255.
        rows: A label for each of the ``R`` rows, text or numbers.
        columns: A label for each of the ``C`` columns.
        row_name: What the row labels are, e.g. ``"$c_2$"``.
        column_name: What the column labels are.
        title: Title of the figure.
        scale: Pixels of the figure for a pixel of an image; by default a cell is near to one inch.

    Returns:
        The figure.

    Raises:
        ValueError: If the shape is none of these, values are not finite, a number of labels does
            not fit, or ``scale`` is below 1.

    Example:
        >>> figure = attribute_grid(np.zeros((2, 3, 8, 8)), columns=[-0.5, 0.5, 1.5])
        >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
        ['-0.5', '0.5', '1.5']
    """
    cells = _cells(images)  # (R, C, H, W, 3)
    r, c, height, width = cells.shape[:4]
    row_texts = label_texts("attribute_grid", "rows", rows, r)
    column_texts = label_texts("attribute_grid", "columns", columns, c)
    figure = Figure()
    dpi = figure.get_dpi()
    if scale is None:
        scale = max(1, round(0.96 * dpi / max(height, width)))
    elif scale < 1:
        raise ValueError(f"attribute_grid: expected scale >= 1, got {scale}")
    gap = max(1, round(0.03 * dpi / scale))  # in pixels of the images
    mosaic = np.zeros((r * (height + gap) - gap, c * (width + gap) - gap, 4))
    for i in range(r):
        for j in range(c):
            top, left = i * (height + gap), j * (width + gap)
            cell = mosaic[top : top + height, left : left + width]
            # The gaps stay transparent and so show any background.
            cell[..., :3], cell[..., 3] = cells[i, j], 1.0

    # Margins are whole pixels, because an axes between two pixels would blur or drop some.
    line, pad = round(1.5 * TEXT * dpi / 72), round(0.06 * dpi)
    label_width = max((_text_width(t, TEXT, dpi) for t in row_texts), default=0)
    column_widths = [_text_width(t, TEXT, dpi) for t in column_texts]
    turned = max(column_widths, default=0) > scale * width
    left = pad + (line if row_name else 0) + (label_width + pad if row_texts else 0)
    top = pad + (line if column_name else 0)
    if column_texts:
        lines = max(len(text.splitlines()) for text in column_texts)
        top += max(column_widths) + pad if turned else line * lines
    names = top
    top += round((0.7 + 1.3 * len(title.splitlines())) * TITLE * dpi / 72) if title else 0
    wide, high = mosaic.shape[1] * scale, mosaic.shape[0] * scale
    title_width = _text_width(title, TITLE, dpi) if title else 0
    full_width = max(left + wide + pad, title_width + 2 * pad)
    full_height = top + high + pad
    figure.set_size_inches(full_width / dpi, full_height / dpi)
    axes = figure.add_axes(
        (left / full_width, pad / full_height, wide / full_width, high / full_height)
    )
    axes.imshow(mosaic, interpolation="nearest", aspect="auto")
    axes.set_frame_on(False)
    axes.tick_params(length=0, labelsize=TEXT, pad=0.04 * 72)
    axes.xaxis.tick_top()
    columns_at = [j * (width + gap) + (width - 1) / 2 for j in range(len(column_texts))]
    rows_at = [i * (height + gap) + (height - 1) / 2 for i in range(len(row_texts))]
    axes.set_xticks(columns_at, labels=column_texts, rotation=90 if turned else 0)
    axes.set_yticks(rows_at, labels=row_texts)
    if column_name:
        y = 1 - (top - names + pad / 2) / full_height
        figure.text(
            (left + wide / 2) / full_width, y, column_name, ha="center", va="top", fontsize=TEXT
        )
    if row_name:
        figure.text(
            pad / full_width,
            (pad + high / 2) / full_height,
            row_name,
            ha="left",
            va="center",
            rotation=90,
            fontsize=TEXT,
        )
    if title:
        # Over the middle of the images, or as near to it as the title fits.
        edge = title_width / 2 + pad
        middle = min(max(left + wide / 2, edge), full_width - edge)
        figure.text(
            middle / full_width,
            1 - pad / full_height,
            title,
            ha="center",
            va="top",
            fontsize=TITLE,
        )
    return figure


def _cells(images: Array) -> Floats:
    array = to_array(images)
    shape = array.shape
    if array.ndim == 4:
        array = array[..., None]
    elif array.ndim == 5 and shape[-1] not in (1, 3) and shape[2] in (1, 3):
        array = np.moveaxis(array, 2, -1)
    if array.ndim != 5 or array.shape[-1] not in (1, 3) or array.size == 0:
        raise ValueError(
            "attribute_grid: expected images of shape (R, C, H, W, 3), (R, C, 3, H, W) or "
            f"(R, C, H, W), got {shape}"
        )
    numbers = array.astype(np.float64)
    if np.issubdtype(array.dtype, np.integer):
        numbers = numbers / 255.0
    check_finite("attribute_grid", "images", numbers)
    return np.broadcast_to(np.clip(numbers, 0.0, 1.0), (*array.shape[:4], 3))


def _text_width(text: str, size: float, dpi: float) -> int:
    """Width of the widest line of ``text`` in whole pixels, by the font and without a renderer."""
    lines = [line for line in text.splitlines() if line.strip()]
    points = (float(TextPath((0, 0), line, size=size).get_extents().width) for line in lines)
    return int(np.ceil(max(points, default=0.0) * dpi / 72))
