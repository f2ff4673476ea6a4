"""ISFM alone, as a sampler of densities with a known answer: one state, no environment."""
