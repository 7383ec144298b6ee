"""Powerpropagation: how an entry is parameterized."""
