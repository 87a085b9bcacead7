"""`python -m fommctl` is `fommctl`."""

from fommctl.cli.start import entry

if __name__ == "__main__":
    entry()
