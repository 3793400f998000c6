"""Records to tables, charts and one page; never imports torch.

Nothing is imported here: `run_data`, `tables`, `figures` and `html` load pandas and matplotlib where they are used.
"""
