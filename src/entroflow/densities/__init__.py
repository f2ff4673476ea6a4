"""ISFM alone, as a sampler of densities with a known answer: one state, no environment."""

from .targets import Density, double_well, gaussian, get, gmm40, grid9, many_well, names, ring4, two_moons

__all__ = ["Density", "double_well", "gaussian", "get", "gmm40", "grid9", "many_well", "names", "ring4", "two_moons"]
