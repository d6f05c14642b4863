"""In charge of a call while it is alive: session, switchboard (who is live, admission, drain), control.

Knows no SQL, no HTTP and no contract; it asks ports of `domain` for its plan and hands them its facts.
"""
