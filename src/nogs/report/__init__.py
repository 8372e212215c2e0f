"""The report of a run: figures and the page, drawn from what is on disk. Computes nothing new."""
