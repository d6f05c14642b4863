"""`python -m switchhook` is the command line."""

from switchhook.cli import main

raise SystemExit(main())
