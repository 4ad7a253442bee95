#!/usr/bin/env python3
"""
Run the notebooks and save what comes out, in place: `python .ci/notebooks.py [NAME …] [--all]`.

Outputs whose text has not changed stay as they are, pictures and ids included, so that a difference shows what is
different. `--all` replaces them too.
"""

import sys
import tempfile
import time
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from rr_notebooks import FOLDER, NAMES, execute, keep_equal, read


def main(arguments: list[str]) -> int:
    """Save the notebooks whose names contain one of the arguments; all of them without any."""
    wanted = [word for word in arguments if not word.startswith("-")]
    for name in NAMES:
        if wanted and not any(word in name for word in wanted):
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            fresh = execute(name, Path(home))
        nbformat.write(fresh if "--all" in arguments else keep_equal(read(name), fresh), FOLDER / name)
        print(f"{name}: {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
