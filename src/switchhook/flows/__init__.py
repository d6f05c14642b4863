"""In charge of interpreting a flow: one action after another, with failure branches."""
