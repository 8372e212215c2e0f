"""Posteriors over the label given any set of glimpses."""
