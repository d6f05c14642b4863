"""`python -m switchhook` is the command line."""
