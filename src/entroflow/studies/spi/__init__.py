"""Soft policy iteration (Algorithm 1), against the exact iterates."""
