"""What a site keeps on disk. Torch-free."""
