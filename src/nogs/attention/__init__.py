"""The hard attention network, its training objectives, and the table of methods."""
