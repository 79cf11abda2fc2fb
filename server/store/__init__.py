"""What the coordinator keeps on disk. Torch-free."""
