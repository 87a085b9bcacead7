"""Downloads weights that a plugin needs besides its models: for a detector, a metric or a perceptual loss."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path


def hub_folder() -> Path:
    """Return the folder in which torch.hub keeps downloaded weights, without importing torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints"


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
    """Return the path of a file of weights, which is downloaded once; an interrupted download is resumed.

    name: file name.  urls: addresses to try in order, as in `ModelSpec`.  folder: where the file is kept; None for
    `weights` in FOMMCTL_HOME.  sha256, size (bytes): of the file, if they are known.  check: called with a downloaded
    file, raises ModelError if it is not as expected.  instead: an alternative to the download, for the hint.
    Raises MissingError if the file is missing and FOMMCTL_OFFLINE is set or every URL fails, OutputError if it cannot
    be written.
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
