"""HDF files of sequences: reading, and writing files that are whole or not there."""
