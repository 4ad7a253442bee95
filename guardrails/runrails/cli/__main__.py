"""`python -m runrails.cli`: the same as the console script."""

from __future__ import annotations

from runrails.cli import main

if __name__ == "__main__":
    main()
