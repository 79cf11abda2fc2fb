"""What the pages read: stores opened for reading only, folded once and kept up to date, as frozen values."""
