"""Flower at the coordinator: SuperLink, runs and the Grid. Only here the server imports flwr."""
