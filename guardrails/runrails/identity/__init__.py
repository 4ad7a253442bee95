"""Who is calling, and what may they do: one principal from API keys, tokens or AWS identities."""
