"""What every layer is: base class, options, parameters, registry."""
