"""vaereg: plug-in regularizers for variational autoencoders that already exist.

A regularizer is one named quantity read from named variables; the sign and the strength live in
its weight; the training loop stays yours.
"""

from vaereg import critics as critics
from vaereg import distributed as distributed
from vaereg import functional as functional
from vaereg import metrics as metrics
from vaereg import schedules as schedules
from vaereg.codes import Batch as Batch
from vaereg.codes import Code as Code
from vaereg.codes import categorical as categorical
from vaereg.codes import deterministic as deterministic
from vaereg.codes import gaussian as gaussian
from vaereg.codes import labels as labels
from vaereg.critics import frozen as frozen
from vaereg.objective import Objective as Objective
from vaereg.regularizer import CriticRegularizer as CriticRegularizer
from vaereg.regularizer import Regularizer as Regularizer
from vaereg.regularizers import CLUB as CLUB
from vaereg.regularizers import DIP as DIP
from vaereg.regularizers import JSD as JSD
from vaereg.regularizers import KL as KL
from vaereg.regularizers import MINE as MINE
from vaereg.regularizers import MMD as MMD
from vaereg.regularizers import NWJ as NWJ
from vaereg.regularizers import SMILE as SMILE
from vaereg.regularizers import AdversarialClassifier as AdversarialClassifier
from vaereg.regularizers import Adversary as Adversary
from vaereg.regularizers import Capacity as Capacity
from vaereg.regularizers import Constraint as Constraint
from vaereg.regularizers import DecomposedKL as DecomposedKL
from vaereg.regularizers import DensityRatioTC as DensityRatioTC
from vaereg.regularizers import FreeBits as FreeBits
from vaereg.regularizers import InfoNCE as InfoNCE
from vaereg.regularizers import MinibatchTC as MinibatchTC
from vaereg.regularizers import VariationalMI as VariationalMI
from vaereg.report import Report as Report
from vaereg.vae import VAE as VAE
from vaereg.vae import VAEOutput as VAEOutput

__version__ = "0.1.0"
