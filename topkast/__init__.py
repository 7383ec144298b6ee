"""Top-KAST: active sets A and B."""
