"""Recurrent layers: units, and loops over sub-networks."""
