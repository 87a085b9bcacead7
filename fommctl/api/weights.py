"""Weights that a plugin needs beside a model: of a detector, a metric, a network that a loss looks through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path


def weights_file(
    name: str,
    urls: Sequence[str],
    *,
    folder: Path | None = None,
    sha256: str | None = None,
    size: int | None = None,
    check: Callable[[Path], object] = lambda path: None,
    instead: str = "",
) -> Path:
    """Return the file of weights called `name`; it is fetched once, and goes on where an earlier download was cut.

    urls: tried in order, as those of `ModelSpec`.  folder: where it is kept; None for that of FOMMCTL_HOME.  check:
    raises ModelError where a fetched file is not what it should be.  instead: what else a user may do, for the hint.
    Raises MissingError where the file is not there and FOMMCTL_OFFLINE is set or no address gives it, OutputError where
    it cannot be written.
    """
    from fommctl.download import Expected, download
    from fommctl.home import home, model_lock

    target = (folder or home() / "weights") / name
    if target.is_file():
        return target
    hint = f"Fetch {urls[0]} by other means and put it at {target}{f', or {instead}' if instead else ''}."
    with model_lock(f"weights-{name}"):
        if not target.is_file():
            download(urls, target, Expected(sha256=sha256, size=size, check=check), hint=hint)
    return target
