"""`python -m fommctl` is `fommctl`."""

from fommctl.cli.main import entry

if __name__ == "__main__":
    entry()
