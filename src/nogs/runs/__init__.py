"""Run directories, provenance, devices, random generators and progress bars."""
