"""Certificates for the connection between operator and gateways: made here, renewed in time.

All functions are pure but for the keys they make: they take the files of a Secret and return those
that it should have. ``cryptography`` is imported when a certificate is made or looked at, because it
costs memory that an idle operator need not pay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from kohort.route.envoy.identity import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256

Files = Mapping[str, bytes]

AUTHORITY_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=90)
# Clocks differ; a certificate that is not yet valid somewhere would cut a connection.
BACKDATED = timedelta(hours=1)
RENEW_AT = 1 / 3
"""A certificate with less than this share of its life left is replaced."""

OPERATOR_NAME = "kohort-operator"
GATEWAY_NAME = "kohort-gateway"


def authority(current: Files | None, now: datetime) -> Files:
    """The files of the authority: those that it has, or new ones when there are none or time is up.

    ``ca.crt`` is what to trust: it keeps every former authority that is still valid, so that
    certificates it signed go on. ``tls.crt`` and ``tls.key`` sign.
    """
    if current and not _due(current.get(CERTIFICATE_FILE), now):
        return current
    from cryptography import x509

    key = _key()
    name = _name("kohort-authority")
    certificate = (
        _builder(name, name, key, now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, _sha256())
    )
    pem = _pem(certificate)
    former = [
        _pem(old)
        for old in _load_all((current or {}).get(AUTHORITY_FILE, b""))
        if old.not_valid_after_utc > now
    ]
    return {
        AUTHORITY_FILE: b"".join([pem, *former]),
        CERTIFICATE_FILE: pem,
        KEY_FILE: _key_pem(key),
    }


def operator_files(
    current: Files | None, authority_files: Files, addresses: Sequence[str], now: datetime
) -> Files:
    """The operator's Secret: a server certificate for ``kohort-operator`` and ``addresses``."""
    names = (OPERATOR_NAME, *addresses)
    return _leaf(current, authority_files, names, now, server=True)


def gateway_files(current: Files | None, authority_files: Files, now: datetime) -> Files:
    """The gateways' Secret: one client certificate for all of them."""
    return _leaf(current, authority_files, (GATEWAY_NAME,), now, server=False)


def _leaf(
    current: Files | None,
    authority_files: Files,
    names: Sequence[str],
    now: datetime,
    server: bool,
) -> Files:
    trusted = authority_files[AUTHORITY_FILE]
    if current and not _due(current.get(CERTIFICATE_FILE), now) and _says(current, names):
        # A new authority is trusted everywhere long before anything that it signed is shown.
        return {**current, AUTHORITY_FILE: trusted}
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509.oid import ExtendedKeyUsageOID

    issuer = x509.load_pem_x509_certificate(authority_files[CERTIFICATE_FILE])
    signer = load_pem_private_key(authority_files[KEY_FILE], None)
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
    key = _key()
    certificate = (
        _builder(_name(names[0]), issuer.subject, key, now, LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
        )
        .sign(signer, _sha256())  # type: ignore[arg-type]
    )
    return {AUTHORITY_FILE: trusted, CERTIFICATE_FILE: _pem(certificate), KEY_FILE: _key_pem(key)}


def _due(pem: bytes | None, now: datetime) -> bool:
    certificates = _load_all(pem or b"")
    if not certificates:
        return True
    begin, end = certificates[0].not_valid_before_utc, certificates[0].not_valid_after_utc
    return end - now < (end - begin) * RENEW_AT


def _says(current: Files, names: Sequence[str]) -> bool:
    from cryptography import x509

    certificate = _load_all(current[CERTIFICATE_FILE])[0]
    said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {_general_name(name) for name in names} == set(said)


def _load_all(pem: bytes) -> Sequence[x509.Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        return ()


def _key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _name(common: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(name: str) -> x509.GeneralName:
    import ipaddress

    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: EllipticCurvePrivateKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(signs: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _sha256() -> SHA256:
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256()


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
