"""Train a translator: `python train.py --help` says what can be chosen."""

from minitx.cli.train import main

if __name__ == "__main__":
    main()
