"""Every hospital of a simulation in one computation: ``engine`` makes the rounds, the rest is its mathematics."""
