"""The command line: `main` and one file a command; heavy imports wait until a command runs."""
