"""Model files: names, formats, which one to start from, loading, clean-up."""
