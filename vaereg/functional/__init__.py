"""Pure functions on tensors: divergences, likelihoods, bounds. All in nats."""

from vaereg.functional.bounds import donsker_varadhan as donsker_varadhan
from vaereg.functional.bounds import jensen_shannon as jensen_shannon
from vaereg.functional.bounds import log_mean_exp as log_mean_exp
from vaereg.functional.bounds import mine_loss as mine_loss
from vaereg.functional.bounds import moving_log_average as moving_log_average
from vaereg.functional.divergences import gaussian_kl as gaussian_kl
from vaereg.functional.divergences import kl_per_row as kl_per_row
from vaereg.functional.divergences import kl_terms as kl_terms
from vaereg.functional.likelihoods import bernoulli_nll as bernoulli_nll
from vaereg.functional.likelihoods import categorical_nll as categorical_nll
from vaereg.functional.likelihoods import gaussian_nll as gaussian_nll
from vaereg.functional.likelihoods import laplace_nll as laplace_nll
