r"""Figures of codes and measurements; the only module that needs matplotlib.

Each function returns a :class:`matplotlib.figure.Figure` that belongs to nobody else: pyplot's
list of figures and the backend are left alone, so that all of this works without a display. Save
with ``figure.savefig("name.png")``. Background, text colour and font follow the user's matplotlib
settings; the other colours are fit for colour-blind readers.

A measured value is a ``(mean, std)`` pair or an object with ``mean`` and ``std``, such as
:class:`vaereg.metrics.MIEstimate`.
"""

try:
    import matplotlib as _matplotlib
except ImportError as error:
    raise ImportError(
        "vaereg.plots: expected matplotlib to be installed, got none; run "
        'pip install "vaereg[plots]"'
    ) from error

from vaereg.plots.audits import audit_history as audit_history
from vaereg.plots.codes import code_scatter as code_scatter
from vaereg.plots.images import attribute_grid as attribute_grid
from vaereg.plots.measurements import mi_bars as mi_bars
from vaereg.plots.measurements import mi_sweep as mi_sweep
from vaereg.plots.measurements import mi_trend as mi_trend

del _matplotlib
