"""In charge of every door that speaks HTTP: one folder per contract, and `ops` for health and metrics."""
