"""r-CVAE, CSVAE and MMVAE on faces: training, tables and figures in one command.

With no options it draws its own faces and needs no download; see ``--help``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from mmvae.main import main

if __name__ == "__main__":
    sys.exit(main())
