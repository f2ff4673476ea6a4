"""Soft policy iteration and actor-critic (sections III-A and III-D of the paper)."""
