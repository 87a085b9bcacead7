"""Colour spaces of pictures with more than 8 bits, and their conversion to what a model sees.

Built in are display-referred sRGB, scene-linear Rec.709, the log density of scanned film, and the signals of HDR and
wide-gamut video. All others are OCIO's, through OpenImageIO (extra `vfx`), which comes with the ACES configurations.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fommctl.errors import InputError, MissingError, UsageError
from fommctl.media.colour import (
    BT709,
    BT2020,
    BT2020_LUMA,
    DEFAULT_PEAK,
    PRIMARIES_P3_D65,
    PRIMARIES_P3_DCI,
    REFERENCE_WHITE,
    SDR_GAMMA,
    TRANSFER_BT2020,
    TRANSFER_HLG,
    TRANSFER_PQ,
    ColourTags,
    hlg_scene_light,
    hlg_signal,
    pq_light,
    pq_signal,
    to_bt709,
    to_xyz,
)
from fommctl.presets.config import nearest

Floats = NDArray[np.float32]
SRGB, LINEAR, FILM_LOG = "srgb_rec709_display", "lin_rec709_scene", "film_log"
_DISPLAYS = {
    "pq_rec2020_display": ColourTags(BT2020, TRANSFER_PQ, BT2020),
    "pq_p3d65_display": ColourTags(PRIMARIES_P3_D65, TRANSFER_PQ, BT709),
    "hlg_rec2020_display": ColourTags(BT2020, TRANSFER_HLG, BT2020),
    "g24_rec2020_display": ColourTags(BT2020, TRANSFER_BT2020, BT2020),
    "g24_p3d65_display": ColourTags(PRIMARIES_P3_D65, BT709, BT709),
}
"""Signals of HDR and wide-gamut video, with the tags of such files."""
_BUILT_IN = frozenset({SRGB, LINEAR, FILM_LOG, *_DISPLAYS})
_LINEAR_NAMES = (LINEAR, "Linear Rec.709 (sRGB)", "lin_srgb", "Utility - Linear - sRGB", "Utility - Linear - Rec.709")
DEFAULT_CONFIG = "ocio://cg-config-latest"
KNEE, REACH = 0.5, 0.2
"""The shoulder: light is unchanged up to the knee, above it grows by REACH times a logarithm. The model's white, 1, is
a scene-linear 2.74; the curve continues above it and is invertible everywhere."""
_REC709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
_AP0 = (0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.077, 0.32168, 0.33767)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_STRIP = 1 << 18
"""Bytes of a picture that are converted at a time."""
_FILM_BLACK, _FILM_WHITE, _FILM_STEP = 95, 685, 0.002 / 0.6
"""10-bit code values of black and white, and the logarithm of light per code (SMPTE RP 180, Kodak's Cineon)."""


def import_openimageio(what: str) -> Any:
    """Return the module OpenImageIO. Raises MissingError, which says that `what` needs it."""
    try:
        import OpenImageIO
    except ImportError as error:
        raise MissingError(f"{what} needs OpenImageIO", "Install it: pip install 'fommctl[vfx]'.") from error
    return OpenImageIO


@dataclass(frozen=True, slots=True)
class Space:
    """A colour space."""

    name: str
    """Name of a built-in space, or canonical name in the OCIO configuration."""
    config: str | None = None
    """The OCIO configuration; None for a built-in space."""
    primaries: tuple[float, ...] | None = None
    """x and y of a linear space's red, green, blue and white; None for Rec.709."""


def linear_space(primaries: Sequence[float]) -> Space:
    """Return the linear space with these chromaticities (x and y of red, green, blue and white).

    Raises ValueError if they do not span a colour space.
    """
    given = tuple(round(float(number), 5) for number in primaries)
    if np.allclose(given, _REC709, atol=2e-4):
        return Space(LINEAR)
    matrix = _to_rec709(given)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-6:
        raise ValueError("no primaries")
    return Space(LINEAR, None, given)


def find_space(name: str, config: str | None, flag: str) -> Space:
    """Return the space with this name or role.

    flag: the option, for messages. Raises UsageError with the nearest names, MissingError without OpenImageIO.
    """
    if name in _BUILT_IN and config is None and not os.environ.get("OCIO"):
        return Space(name)
    path = choose_config(config)
    colours = _config(path)
    if colours.getColorSpaceIndex(name) < 0 and name not in colours.getRoles():
        raise _unknown(f"{flag} is '{name}', which is not a colour space", name, _names(colours), path)
    return Space(colours.resolve(name), path)


def stated_space(name: str, config: str | None) -> Space | None:
    """Return the space that a file names; None if the configuration does not have it."""
    if name in _BUILT_IN:
        return Space(name)
    path = choose_config(config)
    colours = _config(path)
    return Space(colours.resolve(name), path) if colours.getColorSpaceIndex(name) >= 0 else None


def check_view(view: str, config: str | None) -> None:
    """Raise UsageError, with the nearest names, unless the configuration has this DISPLAY/VIEW."""
    path = choose_config(config)
    colours = _config(path)
    known = [f"{display}/{each}" for display in colours.getDisplayNames() for each in colours.getViewNames(display)]
    if view not in known:
        raise _unknown(f"--display-view is '{view}', which is no DISPLAY/VIEW", view, known, path)


def choose_config(config: str | None) -> str:
    """Return the configuration to use: the given one, else $OCIO, else the one inside the wheel."""
    return config or os.environ.get("OCIO") or DEFAULT_CONFIG


def _names(colours: Any) -> list[str]:
    return [*colours.getColorSpaceNames(), *colours.getRoles()]


def _unknown(message: str, name: str, known: Sequence[str], path: str) -> UsageError:
    by_case = {each.lower(): each for each in known}
    close = nearest(name.lower(), list(by_case))
    inside = [each for each in known if name.lower() in each.lower()]
    found = list(dict.fromkeys([*([by_case[close]] if close else []), *inside]))[:4] or list(known)[:4]
    return UsageError(f"{message} of {path}", f"Nearest: {', '.join(found)}.")


@cache
def _config(path: str) -> Any:
    """Load a configuration. Raises InputError if it cannot be read."""
    oiio = import_openimageio("an OCIO configuration")
    if "://" not in path and not Path(path).is_file():
        raise InputError(f"the OCIO configuration {path} does not exist", "Check --ocio and $OCIO.")
    colours = oiio.ColorConfig(path)
    problem = str(colours.geterror() or "")
    if problem or not colours.getDisplayNames():
        reason = problem.splitlines()[0] if problem else "it has no displays"
        raise InputError(f"the OCIO configuration {path} cannot be read: {reason}", "Check --ocio and $OCIO.")
    return colours


def space_of(tags: ColourTags) -> Space:
    """Return the space of a video with these tags: sRGB unless they are of HDR or a wide gamut."""
    if not (tags.hdr or tags.wide_gamut):
        return Space(SRGB)
    p3 = tags.primaries in (PRIMARIES_P3_D65, PRIMARIES_P3_DCI)
    if tags.transfer == TRANSFER_HLG:
        return Space("hlg_rec2020_display")
    return Space(f"{'pq' if tags.hdr else 'g24'}_{'p3d65' if p3 else 'rec2020'}_display")


def tags_of(space: Space) -> ColourTags | None:
    """Return the tags of HDR or wide-gamut video in this space; None for all others."""
    return _DISPLAYS.get(space.name) if space.config is None else None


Change = Callable[[Floats], Floats]
"""A conversion of pixels (..., 3)."""


class _Conversion(NamedTuple):
    to_linear: Change
    """Conversion to scene-linear Rec.709."""
    from_linear: Change
    slow_start: bool = False
    """Whether a call takes long even for one pixel."""


def to_linear(space: Space) -> Change:
    """Return the conversion from a space to scene-linear Rec.709."""
    return _conversion(space).to_linear


def from_linear(space: Space) -> Change:
    """Return the conversion from scene-linear Rec.709 to a space."""
    return _conversion(space).from_linear


@cache
def _conversion(space: Space) -> _Conversion:
    if space.primaries is not None:
        return _products(_to_rec709(space.primaries))
    if (tags := tags_of(space)) is not None:
        return _display(tags)
    if space.config is None:
        return {
            SRGB: _Conversion(decode_srgb, encode_srgb),
            LINEAR: _Conversion(_same, _same),
            FILM_LOG: _Conversion(_film_light, _film_density),
        }[space.name]
    return _by_ocio(space.name, space.config)


def _display(tags: ColourTags) -> _Conversion:
    """Return the conversions of a display signal; light of 1 is diffuse white."""
    there, back, _ = _products(to_bt709(tags.primaries or BT2020).astype(np.float64))
    decode, encode = {TRANSFER_PQ: (_pq_light, _pq_signal), TRANSFER_HLG: (_hlg_light, _hlg_signal)}.get(
        tags.transfer or 0, (_gamma_light, _gamma_signal)
    )
    return _Conversion(lambda signal: there(decode(signal)), lambda light: encode(back(light)))


def _pq_light(signal: Floats) -> Floats:
    return (pq_light(np.clip(signal, 0, 1).astype(np.float64)) / REFERENCE_WHITE).astype(np.float32)


def _pq_signal(light: Floats) -> Floats:
    return np.asarray(pq_signal(light.astype(np.float64) * REFERENCE_WHITE), np.float32)


def _hlg_light(signal: Floats) -> Floats:
    """Convert to display light with the system gamma of 1.2 for 1,000 cd/m2 (ITU-R BT.2100, table 5, OOTF)."""
    scene = hlg_scene_light(np.clip(signal, 0, 1).astype(np.float64))
    luminance = np.maximum(scene @ BT2020_LUMA, 1e-12)[..., None]
    return np.asarray(scene * np.power(luminance, 0.2) * (DEFAULT_PEAK / REFERENCE_WHITE), np.float32)


def _hlg_signal(light: Floats) -> Floats:
    shown = np.maximum(light.astype(np.float64) * (REFERENCE_WHITE / DEFAULT_PEAK), 0)
    luminance = np.maximum(shown @ BT2020_LUMA, 1e-14)[..., None]
    return hlg_signal(shown * np.power(luminance, -1 / 6)).astype(np.float32)


def _gamma_light(signal: Floats) -> Floats:
    return np.power(np.maximum(signal, 0), np.float32(SDR_GAMMA)).astype(np.float32)


def _gamma_signal(light: Floats) -> Floats:
    return np.power(np.maximum(light, 0), np.float32(1 / SDR_GAMMA)).astype(np.float32)


def _to_rec709(primaries: Sequence[float]) -> NDArray[np.float64]:
    """Return the matrix (3, 3) from light in these primaries to Rec.709, with the white adapted (Bradford)."""
    theirs, ours = to_xyz(primaries), to_xyz(_REC709)
    white, wanted = (_BRADFORD @ matrix.sum(axis=1) for matrix in (theirs, ours))
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(wanted / white) @ _BRADFORD
    return np.asarray(np.linalg.inv(ours) @ adapted @ theirs)


def _same(values: Floats) -> Floats:
    return values


def _by_ocio(name: str, path: str) -> _Conversion:
    """Return the conversions between a space of a configuration and linear Rec.709.

    Every call of OCIO has a set-up of a tenth of a second and more. Spaces that are a matrix, or a curve and a matrix
    (as cameras have them), are therefore sampled once and then computed here.
    """
    colours = _config(path)
    linear = next((each for each in _LINEAR_NAMES if colours.getColorSpaceIndex(each) >= 0), None)
    after: Change = _same
    before: Change = _same
    if linear is None:
        if "aces_interchange" not in colours.getRoles():
            raise InputError(
                f"the OCIO configuration {path} has neither linear Rec.709 nor the role aces_interchange",
                "Use another one with --ocio.",
            )
        linear = "aces_interchange"
        after, before, _ = _products(_to_rec709(_AP0))
    decode, encode = _ocio(name, linear, path), _ocio(linear, name, path)
    ramp = np.linspace(*_CURVE, dtype=np.float32)
    samples = np.concatenate((_TRIAL, np.repeat(ramp[:, None], 3, axis=1)))
    light = after(decode(samples)).astype(np.float64)
    found = _as_matrix(light[: len(_TRIAL)]) or _as_curve(light, ramp)
    return found or _Conversion(
        lambda values: after(decode(values)), lambda values: encode(before(values)), slow_start=True
    )


_TRIAL = np.array(
    [
        *np.eye(3),
        *([0.7, 0.3, 0.3], [0.3, 0.7, 0.3], [0.3, 0.3, 0.7], [0.3, 0.3, 0.3]),
        *([0.18, 0.02, 3.0], [-0.1, 0.5, 0.9], [40.0, 1.0, 0.0], [0.0, 0.0, 0.0]),
        *([0.2, 0.6, 0.9], [0.55, 0.15, 0.4]),
    ],
    np.float32,
)
"""Colours that identify a conversion: the first three give a matrix, the next four a curve, the rest are checks."""
_CURVE = (-1.0, 2.0, (1 << 18) + 1)
"""First and last value at which a curve is tabulated, and the number of values."""


def _as_matrix(light: NDArray[np.float64]) -> _Conversion | None:
    """Return the conversion that maps the trial colours to `light` as a matrix; None if it is not linear."""
    rows = light[:3]
    if not np.allclose(light, _TRIAL @ rows, rtol=1e-5, atol=1e-6):
        return None
    return _products(rows.T)


def _as_curve(light: NDArray[np.float64], ramp: Floats) -> _Conversion | None:
    """Return the conversion that maps the trial colours and a grey ramp to `light` as one curve for all channels and
    then a matrix; None if it is not of that form."""
    trial, grey = light[: len(_TRIAL)], light[len(_TRIAL) :, 1]
    usable = np.isfinite(grey) & np.concatenate(([True], np.diff(grey) > 0))
    start = int(np.argmax(usable & (ramp >= -0.05)))
    while start > 0 and usable[start]:
        start -= 1
    places, grey = ramp[start:].astype(np.float64), grey[start:]
    places, grey = places[np.isfinite(grey)], grey[np.isfinite(grey)]
    if len(grey) < 1000 or (np.diff(grey) <= 0).any():
        return None

    def curve(values: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.asarray(np.interp(values, places, grey))

    step = float(curve(np.array(0.7)) - curve(np.array(0.3)))
    matrix = (trial[3:6] - trial[6]).T / step
    known = trial[-2:]
    if abs(np.linalg.det(matrix)) < 1e-6 or not np.allclose(curve(_TRIAL[-2:]) @ matrix.T, known, rtol=1e-4, atol=1e-5):
        return None
    there, back, _ = _products(matrix)

    def decode(values: Floats) -> Floats:
        return there(curve(values).astype(np.float32))

    def encode(values: Floats) -> Floats:
        return np.interp(back(values), grey, places).astype(np.float32)

    return _Conversion(decode, encode)


def _ocio(source: str, target: str, path: str) -> Change:
    oiio = import_openimageio("OCIO")

    def change(values: Floats) -> Floats:
        picture = oiio.ImageBuf(_as_picture(values))
        made = oiio.ImageBufAlgo.colorconvert(picture, source, target, unpremult=False, colorconfig=path)
        return _pixels(oiio, made, values.shape)

    return change


def _as_picture(values: Floats) -> Floats:
    return np.ascontiguousarray(values.reshape(1, -1, 3) if values.ndim == 2 else values, np.float32)


def _pixels(oiio: Any, made: Any, shape: tuple[int, ...]) -> Floats:
    if made.has_error:
        raise InputError(
            f"OCIO failed: {str(made.geterror()).splitlines()[0]}", "Check --ocio and the names of spaces."
        )
    return np.asarray(made.get_pixels(oiio.FLOAT), np.float32).reshape(shape)


def _products(matrix: NDArray[np.floating]) -> _Conversion:
    return _Conversion(_product(matrix), _product(np.linalg.inv(matrix)))


def _product(matrix: NDArray[np.floating]) -> Change:
    """Return the product of a matrix and pixels as a conversion, by sums: BLAS is slower on rows of three."""
    if np.array_equal(matrix, np.eye(3)):
        return _same
    factors = matrix.astype(np.float32)

    def change(values: Floats) -> Floats:
        result = np.empty(values.shape, np.float32)
        for channel in range(3):
            np.multiply(values[..., 0], factors[channel, 0], out=result[..., channel])
            for other in (1, 2):
                result[..., channel] += values[..., other] * factors[channel, other]
        return result

    return change


def _in_strips(change: Change, values: Floats) -> Floats:
    """Apply `change` to a picture (H, W, 3), a few rows at a time, so that they stay in the processor's cache."""
    if values.ndim < 3:
        return change(values)
    result, height = np.empty_like(values), max(1, _STRIP // values[0].nbytes)
    for start in range(0, len(values), height):
        result[start : start + height] = change(values[start : start + height])
    return result


def decode_srgb(signal: Floats) -> Floats:
    """Convert an sRGB signal to light (IEC 61966-2-1); the curve continues above 1, its straight part below 0."""
    light = (signal + np.float32(0.055)) / np.float32(1.055)
    np.power(np.maximum(light, 0, out=light), np.float32(2.4), out=light)
    np.divide(signal, np.float32(12.92), out=light, where=signal <= np.float32(0.04045))
    return light


def encode_srgb(light: Floats) -> Floats:
    """Convert light to an sRGB signal, the inverse of `decode_srgb`."""
    signal = np.power(np.maximum(light, 0), np.float32(1 / 2.4)) * np.float32(1.055) - np.float32(0.055)
    return np.where(light <= np.float32(0.0031308), light * np.float32(12.92), signal).astype(np.float32, copy=False)


def compress(light: Floats) -> Floats:
    """Apply the shoulder: compress light above the knee by a strictly increasing curve."""
    if light.max(initial=0) <= KNEE:
        return light
    above = np.maximum(light - np.float32(KNEE), 0)
    return np.where(
        above > 0, np.float32(KNEE) + np.float32(REACH) * np.log1p(above / np.float32(REACH)), light
    ).astype(np.float32, copy=False)


def expand(light: Floats) -> Floats:
    """Invert `compress`, up to the largest half-float."""
    if light.max(initial=0) <= KNEE:
        return light
    above: Floats = np.maximum(light - np.float32(KNEE), 0)
    np.exp(np.minimum(above / np.float32(REACH), np.float32(12.71)), out=above)
    # expm1 takes several times as long, and is no more exact once the knee is added.
    above -= np.float32(1)
    above *= np.float32(REACH)
    above += np.minimum(light, np.float32(KNEE))
    return above


def _film_light(codes: Floats) -> Floats:
    black = 10 ** ((_FILM_BLACK - _FILM_WHITE) * _FILM_STEP)
    light = np.power(np.float32(10), (codes * 1023 - _FILM_WHITE) * np.float32(_FILM_STEP))
    return np.asarray((light - np.float32(black)) / np.float32(1 - black), np.float32)


def _film_density(light: Floats) -> Floats:
    black = 10 ** ((_FILM_BLACK - _FILM_WHITE) * _FILM_STEP)
    least = np.float32(10 ** (-_FILM_WHITE * _FILM_STEP))
    scaled = np.maximum(light * np.float32(1 - black) + np.float32(black), least)
    return np.asarray((np.log10(scaled) / np.float32(_FILM_STEP) + _FILM_WHITE) / 1023, np.float32)


@dataclass(frozen=True, slots=True)
class DisplayTransform:
    """The invertible conversion from values in a space to the display-referred signal that a model sees."""

    space: Space
    shoulder: bool
    """Whether values can be brighter than a display's white, and are compressed by the shoulder."""
    view: str | None = None
    """DISPLAY/VIEW of the configuration to use instead of the built-in curve."""
    config: str | None = None
    """The configuration of the view."""

    @property
    def plain(self) -> bool:
        """Whether the conversion is the identity."""
        return self.view is None and not self.shoulder and self.space == Space(SRGB)

    @property
    def in_strips(self) -> bool:
        """Whether converting a picture strip by strip takes no longer than converting it as a whole."""
        return self.view is None and not _conversion(self.space).slow_start

    def shown(self, values: Floats) -> Floats:
        """Convert values (..., 3) to the display-referred sRGB signal: 1 is the model's white, brighter light is above
        1."""
        if self.plain:
            return values
        if self.view is not None:
            return self._through_view(values, inverse=False)
        light = to_linear(self.space)(values)
        return _in_strips(lambda part: encode_srgb(compress(part) if self.shoulder else part), light)

    def values(self, signal: Floats) -> Floats:
        """Invert `shown`."""
        if self.plain:
            return signal
        if self.view is not None:
            return self._through_view(signal, inverse=True)
        light = _in_strips(lambda part: expand(decode_srgb(part)) if self.shoulder else decode_srgb(part), signal)
        return from_linear(self.space)(light)

    def _through_view(self, values: Floats, *, inverse: bool) -> Floats:
        assert self.view is not None
        oiio = import_openimageio("--display-view")
        display, _, view = self.view.partition("/")
        path = choose_config(self.config)
        space = self.space.name
        if self.space.config is None:
            # A view needs a space of its own configuration.
            space = _linear_of(path)
            values = values if inverse else to_linear(self.space)(values)
        made = oiio.ImageBufAlgo.ociodisplay(
            oiio.ImageBuf(_as_picture(values)),
            display,
            view,
            space,
            unpremult=False,
            colorconfig=path,
            inverse=inverse,
        )
        result = _pixels(oiio, made, values.shape)
        return from_linear(self.space)(result) if inverse and self.space.config is None else result


def _linear_of(path: str) -> str:
    colours = _config(path)
    found = next((name for name in _LINEAR_NAMES if colours.getColorSpaceIndex(name) >= 0), None)
    if found is None:
        raise UsageError(f"{path} has no linear Rec.709 for its view", "Name the picture's space: --source-space.")
    return found


def choose_display_transform(
    space: Space, *, floating: bool, view: str | None = None, config: str | None = None
) -> DisplayTransform:
    """Return the transform for a space.  floating: whether the file's numbers may exceed 1."""
    light = to_linear(space)(np.array([[0.5] * 3, [1.0] * 3], np.float32))
    straight = abs(float(light[0].mean()) - 0.5) < 1e-3
    return DisplayTransform(space, bool(light[1].max() > 1.001) or (straight and floating), view, config)


def convert(values: Floats, source: Space, target: Space) -> Floats:
    """Convert values from one space to another."""
    return values if source == target else from_linear(target)(to_linear(source)(values))
