"""Attacks on a study by its own training code: they can show that a mechanism is broken, never that it holds."""
