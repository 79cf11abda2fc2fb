"""The coordinator's side: it opens rounds, adds up, and steps. Torch-free; it never sees a patient."""
