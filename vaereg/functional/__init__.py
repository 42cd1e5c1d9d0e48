"""Pure functions on tensors: divergences, likelihoods, bounds. All in nats."""

from vaereg.functional.aggregated import aggregated_log_densities as aggregated_log_densities
from vaereg.functional.aggregated import log_weights as log_weights
from vaereg.functional.aggregated import pairwise_log_density as pairwise_log_density
from vaereg.functional.bounds import donsker_varadhan as donsker_varadhan
from vaereg.functional.bounds import info_nce as info_nce
from vaereg.functional.bounds import jensen_shannon as jensen_shannon
from vaereg.functional.bounds import log_mean_exp as log_mean_exp
from vaereg.functional.bounds import log_tail as log_tail
from vaereg.functional.bounds import mine_loss as mine_loss
from vaereg.functional.bounds import moving_log_average as moving_log_average
from vaereg.functional.bounds import nwj as nwj
from vaereg.functional.bounds import smile as smile
from vaereg.functional.divergences import gaussian_kl as gaussian_kl
from vaereg.functional.divergences import kl_per_row as kl_per_row
from vaereg.functional.divergences import kl_terms as kl_terms
from vaereg.functional.entropies import categorical_entropy as categorical_entropy
from vaereg.functional.entropies import mixture_entropy as mixture_entropy
from vaereg.functional.likelihoods import bernoulli_nll as bernoulli_nll
from vaereg.functional.likelihoods import categorical_nll as categorical_nll
from vaereg.functional.likelihoods import gaussian_nll as gaussian_nll
from vaereg.functional.likelihoods import laplace_nll as laplace_nll
from vaereg.functional.mmd import default_scales as default_scales
from vaereg.functional.mmd import mmd as mmd
from vaereg.functional.moments import dip_penalty as dip_penalty
from vaereg.functional.moments import posterior_covariance as posterior_covariance
from vaereg.functional.variational import barber_agakov as barber_agakov
from vaereg.functional.variational import categorical_club as categorical_club
from vaereg.functional.variational import (
    categorical_log_likelihood as categorical_log_likelihood,
)
from vaereg.functional.variational import gaussian_club as gaussian_club
from vaereg.functional.variational import gaussian_log_likelihood as gaussian_log_likelihood
from vaereg.functional.variational import soft_clamp as soft_clamp
