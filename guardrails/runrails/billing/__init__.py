"""Providers' bills: reading their exports, holding them against the ledger, and putting it right."""
