"""Code of the console tools; the scripts that start them are in the top-level directory `tools`."""
