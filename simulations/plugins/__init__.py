"""A researcher's own model, task or strategy: written, checked, signed, and simulated at once (docs/plugins.md)."""
