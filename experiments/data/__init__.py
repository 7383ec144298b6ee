"""Data sets as NumPy arrays, and the order in which they are read."""
