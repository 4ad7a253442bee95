"""Requests to providers: which headers go and come, when to ask again, and when to let one rest."""
