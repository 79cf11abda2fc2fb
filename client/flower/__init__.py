"""Flower at the hospital: the wrapped SuperNode and the executor behind it. Only here the client imports flwr."""
