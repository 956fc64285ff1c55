"""What functions of a config see of layers and of the network."""
