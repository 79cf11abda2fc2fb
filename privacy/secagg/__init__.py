"""Secure aggregation: sums of hospitals' vectors that the coordinator can open and single vectors that it cannot.

Double masking on the complete graph (Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine
Learning"), authenticated by a pinned roster, keyed once per session, with one list of survivors for each attempt before
anything is opened. Pure: no clock, no file, no socket; random bytes come in as arguments.
"""
