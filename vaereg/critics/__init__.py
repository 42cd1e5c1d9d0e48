r"""Critics: the auxiliary networks that density-ratio and classifier terms are read through.

A critic is any :class:`torch.nn.Module`. Terms of two variables accept both conventions: a module
of one argument receives the two variables flattened and concatenated along dim 1, a module of two
arguments receives them as they are. One that also has a method ``all_pairs(a, b)``, the scores
``(B, M)`` of every row of ``a`` with every row of ``b``, gives such terms all product pairs of a
batch at a fraction of the cost.
"""

from vaereg.critics.calling import AllPairs as AllPairs
from vaereg.critics.calling import check_critic as check_critic
from vaereg.critics.calling import frozen as frozen
from vaereg.critics.calling import input_width as input_width
from vaereg.critics.calling import pair_scores as pair_scores
from vaereg.critics.calling import read_input as read_input
from vaereg.critics.calling import takes_pair as takes_pair
from vaereg.critics.heads import GaussianHead as GaussianHead
from vaereg.critics.networks import Concatenated as Concatenated
from vaereg.critics.networks import Separable as Separable
from vaereg.critics.networks import concatenated as concatenated
from vaereg.critics.networks import mlp as mlp
from vaereg.critics.networks import separable as separable

__all__ = [
    "AllPairs",
    "Concatenated",
    "GaussianHead",
    "Separable",
    "check_critic",
    "concatenated",
    "frozen",
    "input_width",
    "mlp",
    "pair_scores",
    "read_input",
    "separable",
    "takes_pair",
]
