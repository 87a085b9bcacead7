"""fommctl animates a still image with the motion of a video (First Order Motion Model, NeurIPS 2019)."""

from __future__ import annotations

TYPE_CHECKING = False  # not from typing: half of the time that the command needs before it can answer Ctrl-C
if TYPE_CHECKING:
    from typing import Any

    from fommctl.animate.animator import Animator, load
    from fommctl.animate.motion import Motion

__version__ = "2.0.0"
__all__ = ["Animator", "Motion", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # Torch and PyAV are imported when a model is loaded, not when the command prints its help.
    if name in ("Animator", "load"):
        from fommctl.animate import animator

        return getattr(animator, name)
    if name == "Motion":
        from fommctl.animate.motion import Motion

        return Motion
    raise AttributeError(f"module 'fommctl' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
