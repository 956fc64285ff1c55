"""What the engine trains: nets of layers and torch modules behind one interface."""
