"""From a hospital's pictures to features: what a picture is, how it is prepared, and what may leave its header."""
