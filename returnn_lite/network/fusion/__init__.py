"""Several layers of a program computed by one call, with equal numbers."""
