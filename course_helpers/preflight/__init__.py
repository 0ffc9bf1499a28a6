"""What `doctor.py` looks at before anything is downloaded."""
