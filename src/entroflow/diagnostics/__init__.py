"""Distances between distributions and statistics over seeds. NumPy and SciPy only."""
