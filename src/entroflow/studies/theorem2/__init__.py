"""The error bound of Theorem 2, measured."""
