"""Every hospital of a simulation in one batched computation; ``engine`` makes the rounds, the rest is its mathematics."""
