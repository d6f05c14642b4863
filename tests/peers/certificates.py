"""Certificates made for a test: an authority, and whom it vouches for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Identity:
    """PEM files of a certificate and its key."""

    certificate: str
    key: str


def alternative_name(text: str) -> x509.GeneralName:
    """A host name, an address, or a `sip:` URI."""
    if text.startswith("sip:"):
        return x509.UniformResourceIdentifier(text)
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


class Authority:
    """Signs certificates; `file` is its own, as PEM."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._count = 0
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        signing = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        own = self._begin(self._name, self._key.public_key()).add_extension(constraints, critical=True)
        own = own.add_extension(signing, critical=True)
        self.file = str(folder / f"{name}.pem")
        Path(self.file).write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def vouch_for(self, *names: str) -> Identity:
        """A certificate for host names, addresses and `sip:` URIs."""
        self._count += 1
        stem = self._folder / f"{Path(self.file).stem}-{self._count}"
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
        builder = self._begin(subject, key.public_key())
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(self._alternatives(names)), critical=False)
        identity = Identity(f"{stem}.pem", f"{stem}.key")
        Path(identity.certificate).write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        encoded = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        Path(identity.key).write_bytes(encoded)
        return identity

    def _alternatives(self, names: Sequence[str]) -> list[x509.GeneralName]:
        return [alternative_name(name) for name in names]

    def _begin(self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
