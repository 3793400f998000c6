"""Any nn.Module -> its space; widths -> a fresh nn.Module."""
