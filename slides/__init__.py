"""The deck: 30 slides from Markdown files, figures drawn by code, and one self-contained page made of both."""
