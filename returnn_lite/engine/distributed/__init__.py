"""One training in several processes: what the launcher says, `torch_distributed`, and what the processes exchange."""
