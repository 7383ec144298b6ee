"""Data sets, as arrays or as streams of batches, and the order of examples."""
