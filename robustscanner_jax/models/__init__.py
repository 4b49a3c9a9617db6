"""The network: Linen modules, pure functions of (variables, inputs)."""
