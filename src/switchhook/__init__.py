"""Switchhook connects phone calls to AI voice agents.

Nine rooms (`domain`, `media`, `telephony`, `agents`, `flows`, `calls`, `usecases`, `store`, `api`) and a hallway of six files;
imports only go down. ARCHITECTURE.md tells the plan.
"""

__version__ = "0.1.0"
