"""C2PA content credentials (specification 2.2): reads the signer's key, and signs results."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fommctl import __version__
from fommctl.errors import InputError, MissingError, OutputError, UsageError
from fommctl.files import file_sha256
from fommctl.media.files import check_file
from fommctl.media.images_out import encode_png
from fommctl.media.marking import TRAINED_ALGORITHMIC_MEDIA, printable
from fommctl.media.movie import output_errors
from fommctl.media.output_paths import is_pattern
from fommctl.provenance.hashing import InputFile

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


PASSWORD = "FOMMCTL_KEY_PASSWORD"
"""Environment variable with the password of an encrypted key, as command lines are visible to other users."""
LARGEST = 2**20
"""Most bytes of a PEM file."""
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_LEAST_RSA = 2048
_KEYS = "C2PA takes P-256, P-384 and P-521, RSA from 2048 bits, and Ed25519."


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate chain and its private key, hidden from repr()."""

    chain: bytes = field(repr=False)
    """Certificates in PEM, the signer's first."""
    key: bytes = field(repr=False)
    """Private key in PEM (PKCS #8), not encrypted."""
    algorithm: str
    """Name of the signature algorithm in C2PA: es256, es384, es512, ps256 or ed25519."""
    warnings: tuple[str, ...] = ()


def read_credentials(cert: Path, key: Path) -> Credentials:
    """Read and check a certificate chain and its key.

    Raises InputError if a file cannot be read, UsageError if they cannot be used to sign now, MissingError if the
    package `cryptography` is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise MissingError(
            "content credentials need the package cryptography", "Install it: pip install 'fommctl[c2pa]'."
        ) from error
    chain = _read(cert)
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError as error:
        raise UsageError(f"{cert} contains no PEM certificate", "Give the chain, the signer's first.") from error
    private = _load_key(key)
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*spki) != certificates[0].public_key().public_bytes(*spki):
        raise UsageError(
            f"{key} is not the key of the first certificate in {cert}", "The signer's certificate comes first."
        )
    _check_dates(certificates[0], cert)
    plain = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Credentials(chain, plain, _algorithm(private, key), _warnings(key))


def _read(path: Path) -> bytes:
    check_file(path)
    if path.stat().st_size > LARGEST:
        raise UsageError(f"{path} is too large for a PEM file", "Is it the right file?")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "Check its permissions.") from error


def _load_key(path: Path) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    data, password = _read(path), os.environ.get(PASSWORD)
    encrypted = b"ENCRYPTED" in data
    if encrypted and not password:
        raise UsageError(f"{path} is encrypted", f"Set the environment variable {PASSWORD} to its password.")
    try:
        return serialization.load_pem_private_key(data, password.encode() if encrypted and password else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if encrypted:
            raise UsageError(f"the password in {PASSWORD} is wrong for {path}", "Check the variable.") from error
        raise UsageError(f"{path} contains no PEM private key", "Give the key of the certificate.") from error


def _algorithm(private: Any, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in _CURVES:
        return _CURVES[private.curve.name]
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size >= _LEAST_RSA:
        return "ps256"
    raise UsageError(f"{path} is of a type that cannot sign content credentials", _KEYS)


def _check_dates(certificate: Certificate, path: Path) -> None:
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        raise UsageError(f"{path} expired on {certificate.not_valid_after_utc:%Y-%m-%d}", "Get a new certificate.")
    if now < certificate.not_valid_before_utc:
        raise UsageError(
            f"{path} is valid only from {certificate.not_valid_before_utc:%Y-%m-%d}", "Check the clock, or wait."
        )


def _warnings(key: Path) -> tuple[str, ...]:
    if os.name == "posix" and key.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return (f"other users can read the private key {key}: restrict it with chmod 600",)
    return ()


Found = TypeVar("Found")
FORMATS = {".mp4": "video/mp4", ".mov": "video/quicktime", ".gif": "image/gif"}
"""Media types that can be signed, by suffix."""
ANIMATION = "fommctl.animation"
"""Label of fommctl's assertion, which has the model and the inputs with their SHA-256."""
USAGES = (
    "1.3.6.1.4.1.62558.2.1",
    "1.3.6.1.5.5.7.3.4",
    "1.3.6.1.5.5.7.3.36",
    "1.3.6.1.5.5.7.3.8",
    "1.3.6.1.5.5.7.3.9",
    "1.3.6.1.4.1.311.76.59.1.9",
)
"""Extended key usages to accept, as the library's default accepts only e-mail protection: C2PA claim signing, e-mail
protection, document signing, time stamping, OCSP signing, and Microsoft's for C2PA."""
SETTINGS: dict[str, Any] = {
    "version": 1,
    "trust": {"trust_config": "\n".join(USAGES) + "\n"},
    # Hash in pieces, and use temporary files above this size: by default the library needs twice a video's memory.
    "core": {"merkle_tree_chunk_size_in_kb": 1024, "backing_store_memory_threshold_in_mb": 32},
    "builder": {"thumbnail": {"enabled": False}},
    # Never fetch anything from addresses in a file.
    "verify": {"verify_after_sign": False, "remote_manifest_fetch": False, "ocsp_fetch": False},
}
_KINDS = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif",
    ".tif": "image/tiff", ".tiff": "image/tiff", ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime",
    ".avi": "video/avi", ".mkv": "video/x-matroska", ".webm": "video/webm",
}  # fmt: skip


def library() -> Any:
    """Return the c2pa package. Raises MissingError if it is not installed."""
    try:
        import c2pa
    except ImportError as error:
        raise MissingError(
            "content credentials need the package c2pa-python", "Install it: pip install 'fommctl[c2pa]'."
        ) from error
    return c2pa


def undisturbed(work: Callable[[], Found]) -> Found:
    """Run `work` in another thread and return its result; Ctrl-C is raised when it has ended.

    In the library's callbacks Ctrl-C would be lost, and leave a stream at the wrong position.
    """
    with ThreadPoolExecutor(1, "c2pa") as pool:
        return pool.submit(work).result()


def check_signing(output: Path, certificate: Path | None, key: Path | None) -> tuple[str, ...]:
    """Check that a result can be signed, by signing a small picture in memory; return warnings.

    certificate, key: PEM files; if one is None, nothing is checked.  Raises UsageError if the format or the certificate
    does not support it, and the errors of `read_credentials` and `library`.
    """
    if certificate is None or key is None:
        return ()
    if is_pattern(output) or output.suffix.lower() not in FORMATS:
        raise UsageError(
            f"{output.name} cannot have content credentials",
            ".mp4, .mov and .gif support them; for other formats, --sidecar records the hash of the result.",
        )
    c2pa = library()
    credentials = read_credentials(certificate, key)
    picture = io.BytesIO(encode_png(np.zeros((8, 8, 3), np.uint8), "rgb24"))
    try:
        undisturbed(
            lambda: _builder(c2pa, _manifest("trial", [], {})).sign(
                _signer(c2pa, credentials), "image/png", picture, io.BytesIO()
            )
        )
    except c2pa.C2paError as error:
        raise UsageError(
            f"{certificate} cannot sign: {_reason(error)}",
            "C2PA needs a chain whose first certificate is for digital signatures, with the extended key usage "
            "emailProtection or documentSigning, and not itself an authority.",
        ) from error
    return credentials.warnings


@dataclass(slots=True)
class Signature:
    """Signs one finished result before it is renamed to its final name."""

    output: Path
    """Final path of the result."""
    certificate: Path
    key: Path
    inputs: Sequence[tuple[str, InputFile]]
    """Inputs of the result with their roles, in the state in which they were read."""
    model: Mapping[str, str | None]
    """Name, SHA-256 and preset of the model."""
    unsigned_sha256: str | None = None
    """Hash of the result before it was signed; None until then."""

    def __call__(self, finished: Path) -> None:
        """Replace the file by a signed one, atomically.

        Raises OutputError if it cannot be signed or written, InputError if an input was changed since it was read.
        """
        c2pa = library()
        credentials = read_credentials(self.certificate, self.key)
        self.unsigned_sha256 = file_sha256(finished)
        signed = finished.with_name(f"{finished.name}.signed")
        try:
            with output_errors(self.output):
                undisturbed(lambda: self._sign(c2pa, credentials, finished, signed))
                os.replace(signed, finished)
        except c2pa.C2paError as error:
            raise OutputError(
                f"cannot sign {self.output}: {_reason(error)}",
                "Check the space in the folder for temporary files, or leave out --sign.",
            ) from error
        finally:
            signed.unlink(missing_ok=True)

    def _sign(self, c2pa: Any, credentials: Credentials, finished: Path, signed: Path) -> None:
        builder = self._with_ingredients(c2pa)
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
        return {
            "model": {name: value and printable(value) for name, value in self.model.items()},
            "inputs": [
                {"role": role, "title": printable(file.path.name), "sha256": file.sha256()}
                for role, file in self.inputs
            ],
        }

    def _with_ingredients(self, c2pa: Any) -> Any:
        """Return a builder with each input as an ingredient, with its own credentials, if any.

        Inputs that the library cannot read (folders of frames, damaged files) are ingredients with a name only.
        """
        title, about = printable(self.output.name), self._about()
        names = {
            role: {"title": printable(file.path.name), "relationship": "inputTo", "label": role}
            for role, file in self.inputs
        }
        unreadable: list[str] = []
        while True:
            bare = [{**names[role], "instance_id": f"fommctl:{role}"} for role in unreadable]
            builder = _builder(c2pa, _manifest(title, list(names), about, bare))
            readable = ((role, file.path) for role, file in self.inputs if role not in unreadable)
            failed = next((role for role, path in readable if not _add(c2pa, builder, names[role], path)), None)
            if failed is None:
                return builder
            unreadable.append(failed)


class _Target(io.BufferedRandom):
    """A file that keeps the error of a failed write, which the library does not report."""

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


def _add(c2pa: Any, builder: Any, ingredient: dict[str, Any], path: Path) -> bool:
    """Add a file as an ingredient; return whether the library could read it."""
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
    """Return the manifest of a result.

    inputs: labels of all its ingredients.  about: data of fommctl's assertion.  ingredients: those without a file.
    """
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


def _reason(error: Exception) -> str:
    text = (getattr(error, "strerror", None) or str(error)).partition(": ")
    lines = (text[2] or text[0]).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
