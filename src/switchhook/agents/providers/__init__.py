"""In charge of vendors and local engines behind narrow interfaces: one module each."""
