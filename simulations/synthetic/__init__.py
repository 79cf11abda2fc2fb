"""Hospitals that do not exist: patients, pictures and files in every format that a site can read.

Everything is drawn from a public seed, so no person is behind any row. Effects are fixed in ``clinical``
(patients) and in ``phantoms`` (pictures), so what a study should find is known before it runs.
"""
