"""Parameters of other libraries' modules for modules of the frontend."""
