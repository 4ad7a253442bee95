"""How values look: as HTML in a notebook or a file, and as text in a terminal."""
