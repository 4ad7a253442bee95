"""How `runrails serve` goes on, see `runrails_gateway.handover`; nothing to start by hand."""

from __future__ import annotations

from runrails_gateway.handover import main

if __name__ == "__main__":
    main()
