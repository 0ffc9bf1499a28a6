"""The parts of run manifests, put together by `manifest.py`: the form, the pins, the run, the comparison."""
