"""Trainings shared out over many machines: a queue in a database, who fills it, and who works it off."""
