"""A trained network with its preprocessing: from images of any kind and size to answers."""
