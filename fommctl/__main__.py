"""`python -m fommctl` is `fommctl`."""

from fommctl.cli.app import entry

if __name__ == "__main__":
    entry()
