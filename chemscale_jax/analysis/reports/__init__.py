"""Reports and model cards of runs, and comparisons of them."""
