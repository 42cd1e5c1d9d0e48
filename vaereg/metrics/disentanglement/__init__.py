"""Measurements of disentanglement: pure functions of codes and, most of them, of known factors."""

from vaereg.metrics.disentanglement._dci import DCI as DCI
from vaereg.metrics.disentanglement._dci import dci as dci
from vaereg.metrics.disentanglement._downstream import Downstream as Downstream
from vaereg.metrics.disentanglement._downstream import downstream_accuracy as downstream_accuracy
from vaereg.metrics.disentanglement._downstream import sample_efficiency as sample_efficiency
from vaereg.metrics.disentanglement._interventional import BetaVAEScore as BetaVAEScore
from vaereg.metrics.disentanglement._interventional import FactorVAEScore as FactorVAEScore
from vaereg.metrics.disentanglement._interventional import beta_vae_score as beta_vae_score
from vaereg.metrics.disentanglement._interventional import factor_vae_score as factor_vae_score
from vaereg.metrics.disentanglement._irs import IRS as IRS
from vaereg.metrics.disentanglement._irs import irs as irs
from vaereg.metrics.disentanglement._mig import MIG as MIG
from vaereg.metrics.disentanglement._mig import mig as mig
from vaereg.metrics.disentanglement._modularity import Explicitness as Explicitness
from vaereg.metrics.disentanglement._modularity import Modularity as Modularity
from vaereg.metrics.disentanglement._modularity import explicitness as explicitness
from vaereg.metrics.disentanglement._modularity import modularity as modularity
from vaereg.metrics.disentanglement._sap import SAP as SAP
from vaereg.metrics.disentanglement._sap import sap as sap
from vaereg.metrics.disentanglement._table import FactorTable as FactorTable
from vaereg.metrics.disentanglement._udr import UDR as UDR
from vaereg.metrics.disentanglement._udr import udr as udr
from vaereg.metrics.disentanglement._unsupervised import (
    gaussian_total_correlation as gaussian_total_correlation,
)
from vaereg.metrics.disentanglement._unsupervised import (
    wasserstein_correlation as wasserstein_correlation,
)
