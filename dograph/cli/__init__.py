"""The command line: `main` and one file a command, whose docstring is the command's help.

`allocator` sets how these processes allocate memory. Heavy imports wait until a command runs.
"""

EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
