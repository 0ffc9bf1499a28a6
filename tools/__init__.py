"""What the Makefile calls: setting up a machine, the site, the instructor pack."""
