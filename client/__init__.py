"""The hospital's side: it holds the data and the ledger, it decides, and what it refuses does not happen."""
