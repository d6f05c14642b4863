"""In charge of the operator's doors: health, readiness and metrics."""
