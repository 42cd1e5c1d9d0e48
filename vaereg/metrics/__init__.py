"""Measurements of codes and models that are already there; nothing here trains the model."""

from vaereg.metrics.auditing import Audit as Audit
from vaereg.metrics.auditing import AuditHook as AuditHook
from vaereg.metrics.auditing import TermAudit as TermAudit
from vaereg.metrics.auditing import audit as audit
from vaereg.metrics.decomposition import Decomposition as Decomposition
from vaereg.metrics.decomposition import EstimatorBias as EstimatorBias
from vaereg.metrics.decomposition import estimator_bias as estimator_bias
from vaereg.metrics.decomposition import kl_decomposition as kl_decomposition
from vaereg.metrics.information import InformationWarning as InformationWarning
from vaereg.metrics.information import MIEstimate as MIEstimate
from vaereg.metrics.information import estimate_mi as estimate_mi
from vaereg.metrics.samples import SwapAccuracy as SwapAccuracy
from vaereg.metrics.samples import swap_accuracy as swap_accuracy
