"""Posteriors over the label given any set of glimpses: the protocol, two networks and their training."""
