"""What training costs on one GPU, measured by one command: ``python -m benchmarks.gpu``."""
