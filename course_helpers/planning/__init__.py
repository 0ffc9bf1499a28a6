"""What a model costs, what a machine can do, and what people want: `planner.py` puts them together."""
