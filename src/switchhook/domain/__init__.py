"""In charge of the nouns: calls, legs, agents, plans, outcomes, errors, and the ports that join the floors.

Every room may import it; it imports no other room and does no I/O.
"""
