"""A trained network in the formats that other programs read; every format is checked against the network."""
