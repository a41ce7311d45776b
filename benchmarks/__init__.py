"""minitx beside other toolkits, on one machine and one task: `python -m benchmarks --help`. No part of the package."""
