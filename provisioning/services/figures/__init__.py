"""Operating figures: what is, what happened so often, and what of it needs somebody."""
