"""minitx compared with other toolkits, on one machine and one task: `python -m benchmarks --help`.

Not part of the package.
"""
