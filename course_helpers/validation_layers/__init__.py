"""The five layers of the validation stack, one a file. `validation.py` runs them in order."""
