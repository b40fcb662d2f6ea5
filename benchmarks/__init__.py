"""What dograph costs, measured: ``python -m benchmarks`` writes the table of README.md."""
