"""Fail if a test was skipped that is not listed. Usage: check_skips.py JUNIT.xml ALLOWED.txt"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

junit, allowed_file = Path(sys.argv[1]), Path(sys.argv[2])
allowed = {line.strip() for line in allowed_file.read_text().splitlines() if line.strip() and not line.startswith("#")}
skipped = {
    f"{case.get('classname')}::{case.get('name')}": (case.find("skipped").get("message") or "")  # type: ignore[union-attr]
    for case in ElementTree.parse(junit).iter("testcase")
    if case.find("skipped") is not None
}
unexpected = {name: why for name, why in skipped.items() if not any(name.startswith(entry) for entry in allowed)}
for name, why in sorted(skipped.items()):
    print(f"skipped{' UNEXPECTEDLY' if name in unexpected else ''}: {name}: {why}")
print(f"{len(skipped)} skipped, {len(unexpected)} of them unexpectedly")
sys.exit(1 if unexpected else 0)
