"""Run directories and where a run takes place: storage, provenance, devices, progress."""
