"""One folder for every claim: what measures it, the data that were measured, the figure, and what was found."""
