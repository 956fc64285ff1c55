"""Audio: files, features, corpora."""
