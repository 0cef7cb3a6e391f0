"""Reports and fits, from logs and arrays only: nothing here needs JAX."""
