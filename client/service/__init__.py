"""Sites and a coordinator as services of systemd: a user for each, and no more rights than it needs."""
