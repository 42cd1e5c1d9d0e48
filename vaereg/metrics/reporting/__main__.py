"""``python -m vaereg.metrics.reporting``: as ``vaereg-report``."""

import sys

from vaereg.metrics.reporting._command import main

if __name__ == "__main__":
    sys.exit(main())
