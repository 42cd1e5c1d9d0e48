"""A joint VAE whose categorical code finds the classes: training, table, figures, by one command.

With no options it runs on scikit-learn's digits and needs no download; see ``--help``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from vmi.main import main

if __name__ == "__main__":
    sys.exit(main())
