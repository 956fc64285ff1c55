"""What published configs import or name besides the config language itself, on PyTorch."""
