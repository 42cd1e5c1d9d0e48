"""The regularizers, one module a family."""

from vaereg.regularizers.aggregated import DecomposedKL as DecomposedKL
from vaereg.regularizers.aggregated import MinibatchTC as MinibatchTC
from vaereg.regularizers.bounds import NWJ as NWJ
from vaereg.regularizers.bounds import SMILE as SMILE
from vaereg.regularizers.bounds import InfoNCE as InfoNCE
from vaereg.regularizers.club import CLUB as CLUB
from vaereg.regularizers.constraint import Constraint as Constraint
from vaereg.regularizers.divergence import KL as KL
from vaereg.regularizers.divergence import Capacity as Capacity
from vaereg.regularizers.divergence import FreeBits as FreeBits
from vaereg.regularizers.labels import AdversarialClassifier as AdversarialClassifier
from vaereg.regularizers.mutual_information import JSD as JSD
from vaereg.regularizers.mutual_information import MINE as MINE
from vaereg.regularizers.variational import VariationalMI as VariationalMI
