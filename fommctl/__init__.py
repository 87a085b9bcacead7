"""fommctl animates a still image with the motion of a video (First Order Motion Model, NeurIPS 2019)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fommctl.stages.animator import Animator, load

__version__ = "0.1.0"
__all__ = ["Animator", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # Torch and PyAV are imported when a model is loaded, not when the command prints its help.
    if name in ("Animator", "load"):
        from fommctl.stages import animator

        return getattr(animator, name)
    raise AttributeError(f"module 'fommctl' has no attribute '{name}'")
