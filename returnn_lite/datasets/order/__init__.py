"""The order of an epoch's sequences, and their tags."""
