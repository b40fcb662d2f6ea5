"""What dograph costs, measured: ``python -m benchmarks`` writes the table of README.md."""

from dograph.terminal.encoding import print_everything

print_everything()
