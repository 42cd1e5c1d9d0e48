"""Print one of the README's two commands: `main` (runs the example) or `tests`."""

import re
import sys
from pathlib import Path

blocks = re.findall(r"```bash\n(.*?)```", Path("README.md").read_text(encoding="utf-8"), re.S)
wanted = {"main": "mmvae_celeba.py", "tests": "pytest"}[sys.argv[1]]
found = [block.strip() for block in blocks if wanted in block]
if len(found) != 1:
    sys.exit(f"README.md: expected one bash block with {wanted}, got {len(found)}")
print(found[0])
