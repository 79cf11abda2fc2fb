"""Clipping, noise, sampling, accounting, budget mathematics, secure aggregation: no files, no sockets, no clock."""
