"""Fuzzing of everything that reads files of strangers: any error but a CheckpointError is a finding.

    python -m tests.fuzz                            every target for 10 seconds
    python -m tests.fuzz header --seconds 600       one target, longer
    python -m tests.fuzz header --input FILE        one input again, as a finding names it

Valid inputs are changed in ways that know their structure: JSON is taken apart and put together again, tables of
TensorFlow get right check sums, so that what lies behind the first check is reached. Inputs that are accepted are
changed further.
"""
