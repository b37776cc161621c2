"""KV memory of the workers: the page ledger and its prefix index."""
