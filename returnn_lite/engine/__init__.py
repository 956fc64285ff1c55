"""Training, evaluation, forward and search: everything between a config and its output files."""
