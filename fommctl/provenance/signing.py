"""C2PA content credentials: the signer's key, and signing with what a result was made from (specification 2.2)."""

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
"""Environment variable with the password of an encrypted key: a command line can be read by everybody."""
LARGEST = 2**20
"""Bytes of the largest PEM file that is read."""
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_LEAST_RSA = 2048
_KEYS = "C2PA takes P-256, P-384 and P-521, RSA from 2048 bits, and Ed25519."


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate chain with its key, which is never printed."""

    chain: bytes = field(repr=False)
    """Certificates in PEM, the signer's first."""
    key: bytes = field(repr=False)
    """Private key in PEM (PKCS #8), without a password."""
    algorithm: str
    """Name in C2PA: es256, es384, es512, ps256 or ed25519."""
    warnings: tuple[str, ...] = ()


def read_credentials(cert: Path, key: Path) -> Credentials:
    """Read and check both files. Raises InputError for what cannot be read, UsageError for a chain or a key that cannot
    sign now, MissingError without the package `cryptography`."""
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
        raise UsageError(f"{path} is encrypted", f"Put its password into the environment variable {PASSWORD}.")
    try:
        return serialization.load_pem_private_key(data, password.encode() if encrypted and password else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if encrypted:
            raise UsageError(f"the password in {PASSWORD} does not open {path}", "Check it.") from error
        raise UsageError(f"{path} contains no PEM private key", "Give the key of the certificate.") from error


def _algorithm(private: Any, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in _CURVES:
        return _CURVES[private.curve.name]
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size >= _LEAST_RSA:
        return "ps256"
    raise UsageError(f"{path} is a kind of key that cannot sign content credentials", _KEYS)


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
        return (f"others can read the private key {key}: chmod 600 it",)
    return ()


Found = TypeVar("Found")
FORMATS = {".mp4": "video/mp4", ".mov": "video/quicktime", ".gif": "image/gif"}
"""Formats that can be signed, by their endings."""
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
    """Return the c2pa package. Raises MissingError with the command that installs it."""
    try:
        import c2pa
    except ImportError as error:
        raise MissingError(
            "content credentials need the package c2pa-python", "Install it: pip install 'fommctl[c2pa]'."
        ) from error
    return c2pa


def undisturbed(work: Callable[[], Found]) -> Found:
    """Do the work in a thread of its own and return its result: Ctrl-C would be lost inside the library's callbacks,
    and leave it with a stream in the wrong place. An interrupt is raised once the work has ended."""
    with ThreadPoolExecutor(1, "c2pa") as pool:
        return pool.submit(work).result()


def check_signing(output: Path, certificate: Path | None, key: Path | None) -> tuple[str, ...]:
    """Sign a picture in memory as the result will be signed, so that problems show before it is rendered.

    certificate, key: files in PEM; without them nothing is checked. Returns warnings. Raises UsageError,
    MissingError or InputError.
    """
    if certificate is None or key is None:
        return ()
    if is_pattern(output) or output.suffix.lower() not in FORMATS:
        raise UsageError(
            f"content credentials cannot be put into {output.name}",
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
    """Signs one result when it is finished, before it gets its name."""

    output: Path
    """Name that the result will have."""
    certificate: Path
    key: Path
    inputs: Sequence[tuple[str, InputFile]]
    """Inputs of the result with their roles, as they were when they were read."""
    model: Mapping[str, str | None]
    """Name, SHA-256 and name of the preset of the model."""
    unsigned_sha256: str | None = None
    """Hash of the result before it was signed."""

    def __call__(self, finished: Path) -> None:
        """Sign the file in its place, all or nothing. Raises OutputError, and InputError where an input was changed
        since it was read."""
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
        """Return a builder with every input as an ingredient: with its own credentials where it has some, validated
        now; as a name alone where the library cannot read it (a folder of frames, a damaged file)."""
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
    """A file that remembers why it could not be written: the library only reports that it could not."""

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
    """Add a file as an ingredient; return whether the library took it."""
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
    """Describe a result.  inputs: labels of the ingredients that it was made from."""
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
    said = (text[2] or text[0]).strip().splitlines()
    return said[0][:200] if said else type(error).__name__
