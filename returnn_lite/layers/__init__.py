"""Layer classes, one family a file, found by their config word."""
