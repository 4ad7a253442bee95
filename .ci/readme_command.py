"""Print README's set-up command `demo` or `test`, so that CI runs exactly what users read."""

from __future__ import annotations

import re
import sys
from pathlib import Path

readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
blocks = re.findall(r"```sh\n(.*?)```", readme, flags=re.DOTALL)[:2]
wanted = {"demo": "runrails demo", "test": "pytest"}[sys.argv[1]]
found = [block.strip() for block in blocks if wanted in block]
if len(found) != 1 or "\n" in found[0]:
    sys.exit(f"README's first two sh blocks must hold exactly one one-line command with {wanted!r}.")
print(found[0])
