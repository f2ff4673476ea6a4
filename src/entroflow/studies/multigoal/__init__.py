"""Three algorithms on the multi-goal world, against its exact soft optimum."""
