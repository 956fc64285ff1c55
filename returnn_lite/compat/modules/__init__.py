"""What is in the modules that configs import: a function per module that gives its names."""
