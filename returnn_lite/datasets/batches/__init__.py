"""From the order to mini-batches."""
