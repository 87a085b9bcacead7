"""C2PA content credentials: who signed a result, and what it was made from (C2PA specification 2.2)."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fommctl import __version__
from fommctl.errors import MissingError, OutputError, UsageError
from fommctl.files import file_sha256
from fommctl.media.images_out import encode_png
from fommctl.media.marking import TRAINED_ALGORITHMIC_MEDIA, printable
from fommctl.media.movie import output_errors
from fommctl.media.output_paths import is_pattern
from fommctl.models.loading import LoadedModel
from fommctl.provenance.hashing import media_hash, model_identity
from fommctl.provenance.keys import Credentials, read_credentials

Found = TypeVar("Found")
FORMATS = {".mp4": "video/mp4", ".mov": "video/quicktime", ".gif": "image/gif"}
"""What can be signed, by its ending."""
ANIMATION = "fommctl.animation"
"""Label of our assertion: model and inputs with their SHA-256."""
USAGES = (
    "1.3.6.1.4.1.62558.2.1",
    "1.3.6.1.5.5.7.3.4",
    "1.3.6.1.5.5.7.3.36",
    "1.3.6.1.5.5.7.3.8",
    "1.3.6.1.5.5.7.3.9",
    "1.3.6.1.4.1.311.76.59.1.9",
)
"""Extended key usages of signers (C2PA claim signing, e-mail protection, document signing), of time stamps, of OCSP,
and Microsoft's for C2PA: the library by itself refuses all signers but those for e-mail."""
SETTINGS: dict[str, Any] = {
    "version": 1,
    "trust": {"trust_config": "\n".join(USAGES) + "\n"},
    # Hashes of pieces, and temporary files beyond this: by itself the library takes twice the memory of a video.
    "core": {"merkle_tree_chunk_size_in_kb": 1024, "backing_store_memory_threshold_in_mb": 32},
    "builder": {"thumbnail": {"enabled": False}},
    # Nothing is fetched from addresses that a file names.
    "verify": {"verify_after_sign": False, "remote_manifest_fetch": False, "ocsp_fetch": False},
}
_KINDS = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif",
    ".tif": "image/tiff", ".tiff": "image/tiff", ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime",
    ".avi": "video/avi", ".mkv": "video/x-matroska", ".webm": "video/webm",
}  # fmt: skip


def library() -> Any:
    """The c2pa package. Raises MissingError with the command that installs it."""
    try:
        import c2pa
    except ImportError as error:
        raise MissingError(
            "content credentials need the package c2pa-python", "Install it: pip install 'fommctl[c2pa]'."
        ) from error
    return c2pa


def undisturbed(work: Callable[[], Found]) -> Found:
    """What `work` returns, done in a thread of its own: Ctrl-C would be lost inside the library's callbacks, and leave
    it with a stream in the wrong place. An interrupt is raised once the work has ended."""
    with ThreadPoolExecutor(1, "c2pa") as pool:
        return pool.submit(work).result()


def check_signing(output: Path, chain: Path | None, key: Path | None) -> tuple[str, ...]:
    """Sign a picture in memory as the result will be signed, so that what is wrong shows before it is rendered.

    chain, key: as of `Signature`; None: nothing is to be signed.

    Returns warnings. Raises UsageError, MissingError or InputError.
    """
    if chain is None or key is None:
        return ()
    if is_pattern(output) or output.suffix.lower() not in FORMATS:
        raise UsageError(
            f"content credentials cannot be put into {output.name}",
            "They can into .mp4, .mov and .gif; elsewhere --sidecar tells the hash of the result.",
        )
    c2pa = library()
    credentials = read_credentials(chain, key)
    picture = io.BytesIO(encode_png(np.zeros((8, 8, 3), np.uint8), "rgb24"))
    try:
        undisturbed(
            lambda: _builder(c2pa, _manifest("trial", [], {})).sign(
                _signer(c2pa, credentials), "image/png", picture, io.BytesIO()
            )
        )
    except c2pa.C2paError as error:
        raise UsageError(
            f"{chain} cannot sign: {_said(error)}",
            "C2PA wants a chain whose first certificate is for digital signatures, with the extended key usage "
            "emailProtection or documentSigning, and not itself an authority.",
        ) from error
    return credentials.warnings


@dataclass(slots=True)
class Signature:
    """Signs one result when it is finished, before it gets its name."""

    output: Path
    inputs: Sequence[tuple[str, Path]]
    """Role (`source`, `driving`, `view 1`, ...) and file."""
    chain: Path
    """Certificates (PEM), the signer's first."""
    key: Path
    """Private key of the first of them (PEM)."""
    model: LoadedModel
    unsigned_sha256: str | None = None
    """Of the result as it was before."""

    def __call__(self, finished: Path) -> None:
        """Sign the file in its place, all or nothing. Raises OutputError."""
        c2pa = library()
        credentials = read_credentials(self.chain, self.key)
        self.unsigned_sha256 = file_sha256(finished)
        signed = finished.with_name(f"{finished.name}.signed")
        try:
            with output_errors(self.output):
                undisturbed(lambda: self._sign(c2pa, credentials, finished, signed))
                os.replace(signed, finished)
        except c2pa.C2paError as error:
            raise OutputError(
                f"cannot sign {self.output}: {_said(error)}",
                "Check the space in the folder for temporary files, or leave out --sign.",
            ) from error
        finally:
            signed.unlink(missing_ok=True)

    def _sign(self, c2pa: Any, credentials: Credentials, finished: Path, signed: Path) -> None:
        builder = _with_ingredients(c2pa, self.output, self.inputs, self._about())
        kind = FORMATS[self.output.suffix.lower()]
        with finished.open("rb") as source, _Target(io.FileIO(signed, "w+")) as target:
            try:
                builder.sign(_signer(c2pa, credentials), kind, source, target)
            except c2pa.C2paError:
                if target.failure is not None:
                    raise target.failure from None
                raise
            target.flush()
            os.fsync(target.fileno())

    def _about(self) -> dict[str, Any]:
        identity = model_identity(self.model)
        return {
            "model": {
                "name": printable(identity["name"]),
                "sha256": identity["sha256"],
                "preset": printable(self.model.preset.name),
            },
            "inputs": [
                {"role": role, "title": printable(path.name), "sha256": media_hash(path)} for role, path in self.inputs
            ],
        }


class _Target(io.BufferedRandom):
    """A file that knows why it could not be written, of which the library only says that it could not."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except OSError as error:
            self.failure = error
            raise


def _with_ingredients(c2pa: Any, output: Path, inputs: Sequence[tuple[str, Path]], about: dict[str, Any]) -> Any:
    """A builder with every input as an ingredient: with its own credentials where it has some, validated now; as a
    name alone where the library cannot read it (a folder of frames, a damaged file)."""
    title = printable(output.name)
    names = {role: {"title": printable(path.name), "relationship": "inputTo", "label": role} for role, path in inputs}
    unreadable: list[str] = []
    while True:
        bare = [{**names[role], "instance_id": f"fommctl:{role}"} for role in unreadable]
        builder = _builder(c2pa, _manifest(title, list(names), about, bare))
        readable = ((role, path) for role, path in inputs if role not in unreadable)
        failed = next((role for role, path in readable if not _add(c2pa, builder, names[role], path)), None)
        if failed is None:
            return builder
        unreadable.append(failed)


def _add(c2pa: Any, builder: Any, ingredient: dict[str, Any], path: Path) -> bool:
    """Whether the library took the file as an ingredient."""
    if not path.is_file():
        return False
    kind = _KINDS.get(path.suffix.lower(), "application/octet-stream")
    try:
        with path.open("rb") as stream:
            builder.add_ingredient(ingredient, kind, stream)
    except c2pa.C2paError:
        return False
    return True


def _manifest(title: str, inputs: list[str], about: dict[str, Any], ingredients: list[Any] | None = None) -> Any:
    """inputs: labels of the ingredients that the act of creation made use of."""
    tool = {"name": "fommctl", "version": __version__}
    created: dict[str, Any] = {
        "action": "c2pa.created",
        "digitalSourceType": TRAINED_ALGORITHMIC_MEDIA,
        "softwareAgent": tool,
    }
    if inputs:
        created["parameters"] = {"ingredientIds": inputs}
    assertions = [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}, {"label": ANIMATION, "data": about}]
    return {"claim_generator_info": [tool], "title": title, "assertions": assertions, "ingredients": ingredients or []}


def _builder(c2pa: Any, manifest: dict[str, Any]) -> Any:
    return c2pa.Builder(manifest, c2pa.Context(c2pa.Settings.from_dict(SETTINGS)))


def _signer(c2pa: Any, credentials: Credentials) -> Any:
    info = c2pa.C2paSignerInfo(credentials.algorithm, credentials.chain, credentials.key, None)
    return c2pa.Signer.from_info(info)


def _said(error: Exception) -> str:
    text = (getattr(error, "strerror", None) or str(error)).partition(": ")
    said = (text[2] or text[0]).strip().splitlines()
    return said[0][:200] if said else type(error).__name__
