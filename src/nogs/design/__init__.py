"""Where to look next: gain maps, the race that estimates them cheaply, and the greedy search."""
