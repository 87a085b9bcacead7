"""Whether the network may be used: the one answer for fommctl and its plugins."""

import os


def offline() -> bool:
    """Does FOMMCTL_OFFLINE forbid the network? `0`, `false`, `no`, `off` and nothing mean that it does not."""
    return os.environ.get("FOMMCTL_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")
