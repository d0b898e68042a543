"""The certificates and keys of a local cluster, and kubeconfigs that hold them."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID = datetime.timedelta(days=365)
_CLOCK_SKEW = datetime.timedelta(days=1)

# Who each client is to the API server: file name, user, group.
_CLIENTS = (
    ("admin", "kohort-local-admin", "system:masters"),
    ("kube-controller-manager", "system:kube-controller-manager", None),
    ("kube-scheduler", "system:kube-scheduler", None),
    ("proxy", "kohort-local-proxy", None),
    ("kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
)
_API_SERVER_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _write_secret(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


class Authority:
    """A certificate authority that signs what it is asked to, for a year."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kohort-local")])
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(identifier, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key(self) -> bytes:
        """The private key, in PEM."""
        return _pem(self._key)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - _CLOCK_SKEW,
            not_valid_after=now + _VALID,
        )

    def _issue(
        self, common_name: str, organization: str | None, server_addresses: list[str] | None
    ) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if organization:
            attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        server = server_addresses is not None
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            self._builder(x509.Name(attributes), key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(authority, critical=False)
        )
        if server_addresses is not None:
            names: list[x509.GeneralName] = [x509.DNSName(name) for name in _API_SERVER_NAMES]
            names += [x509.IPAddress(ipaddress.ip_address(a)) for a in server_addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)

    def client(self, user: str, group: str | None) -> tuple[bytes, bytes]:
        """Certificate and key of a client, in PEM."""
        return self._issue(user, group, None)

    def server(self, name: str, addresses: list[str]) -> tuple[bytes, bytes]:
        """Certificate and key of a server on these addresses, in PEM."""
        return self._issue(name, None, addresses)


def kubeconfig(
    context: str, server: str, authority: bytes, certificate: bytes, key: bytes
) -> bytes:
    """A kubeconfig that needs no other file; it is JSON, which is YAML too."""

    def text(content: bytes) -> str:
        return base64.b64encode(content).decode()

    cluster = {"server": server, "certificate-authority-data": text(authority)}
    user = {"client-certificate-data": text(certificate), "client-key-data": text(key)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": cluster}],
        "users": [{"name": context, "user": user}],
        "contexts": [
            {
                "name": context,
                "context": {"cluster": context, "user": context, "namespace": "default"},
            }
        ],
        "current-context": context,
    }
    return json.dumps(config, indent=1).encode() + b"\n"


def node_name(index: int) -> str:
    """The name of the n-th node."""
    return f"local-{index}"


def write(directory: Path, server: str, context: str, nodes: int) -> None:
    """Write everything the parts of a cluster need into `directory`, readable by its owner only.

    Files: ca, kube-apiserver, kubelet, and each client and node with .crt and .key; each client
    and node with .kubeconfig; service-accounts.key and .pub.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = Authority()
    _write_secret(directory / "ca.crt", authority.certificate)
    _write_secret(directory / "ca.key", authority.key)
    clients = [*_CLIENTS]
    for index in range(nodes):
        name = node_name(index)
        clients.append((name, f"system:node:{name}", "system:nodes"))
    for name, user, group in clients:
        certificate, key = authority.client(user, group)
        config = kubeconfig(context, server, authority.certificate, certificate, key)
        _write_secret(directory / f"{name}.kubeconfig", config)
        _write_secret(directory / f"{name}.crt", certificate)
        _write_secret(directory / f"{name}.key", key)
    for name, addresses in (
        ("kube-apiserver", ["127.0.0.1", "10.96.0.1"]),
        ("kubelet", ["127.0.0.1"]),
    ):
        certificate, key = authority.server(name, addresses)
        _write_secret(directory / f"{name}.crt", certificate)
        _write_secret(directory / f"{name}.key", key)
    tokens = ec.generate_private_key(ec.SECP256R1())
    _write_secret(directory / "service-accounts.key", _pem(tokens))
    public = tokens.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write_secret(directory / "service-accounts.pub", public)
