"""What `fommctl animate` tells a person at its end."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

    from fommctl.animate.result import AnimateResult


def summary(result: "AnimateResult") -> "Text":
    """What was written and how fast."""
    from rich.text import Text

    sound = f", sound {result.audio}" if result.audio else ""
    rates = f"{result.end_to_end_rate:.1f} frames/s on {result.device} ({result.precision})"
    return Text.assemble(
        (str(result.output), "bold"),
        f"\n{result.frames} frames, {result.width}x{result.height}, {float(result.fps):.3f} fps{sound}; "
        f"model {result.model}; {rates}",
    )
