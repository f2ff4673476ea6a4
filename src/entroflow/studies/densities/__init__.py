"""ISFM alone as a sampler of known densities."""
