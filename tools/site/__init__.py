"""The course as one browsable site, built without a network from what the repository holds: `python -m tools.site`.

Words come from the labs, the documents, the slides and the docstrings; `site/` holds the generator's settings, the
look and the landing page. `stage.py` keeps account of pages and links, the modules beside it write them, and `build.py`
hands them to MkDocs.
"""
