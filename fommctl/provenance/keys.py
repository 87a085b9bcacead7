"""The certificate chain and the private key that sign results."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fommctl.errors import InputError, MissingError, UsageError
from fommctl.media.files import check_file

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

PASSWORD = "FOMMCTL_KEY_PASSWORD"
"""Environment variable with the password of an encrypted key: a command line can be read by everybody."""
LARGEST = 2**20
"""Bytes of a PEM file."""
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_LEAST_RSA = 2048
_KINDS = "C2PA takes P-256, P-384 and P-521, RSA from 2048 bits, and Ed25519."


@dataclass(frozen=True, slots=True)
class Credentials:
    """What signs. Never printed: `key` is the key itself."""

    chain: bytes = field(repr=False)
    """PEM, the signer's certificate first."""
    key: bytes = field(repr=False)
    """PKCS #8, PEM, without a password."""
    algorithm: str
    """C2PA's name: es256, es384, es512, ps256 or ed25519."""
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
        raise UsageError(f"{cert} holds no certificate in PEM", "Give the chain, the signer's first.") from error
    private = _load_key(key)
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*spki) != certificates[0].public_key().public_bytes(*spki):
        raise UsageError(f"{key} is not the key of the first certificate in {cert}", "The signer's comes first.")
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
        raise UsageError(f"{path} holds no private key in PEM", "Give the key of the certificate.") from error


def _algorithm(private: Any, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in _CURVES:
        return _CURVES[private.curve.name]
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size >= _LEAST_RSA:
        return "ps256"
    raise UsageError(f"{path} is of a kind that cannot sign content credentials", _KINDS)


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
