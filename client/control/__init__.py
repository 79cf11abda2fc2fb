"""The daemon's control service: gRPC on a Unix socket, for the people of the site."""
