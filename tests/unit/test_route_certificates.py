"""Certificates that are renewed in time and never cut a connection."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from hypothesis import given, settings
from hypothesis import strategies as st

from kohort.route.envoy.certificates import (
    AUTHORITY_LIFE,
    LEAF_LIFE,
    authority,
    gateway_files,
    operator_files,
)
from kohort.route.envoy.identity import Identity

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIGNER = authority(None, NOW)
GATEWAY = gateway_files(None, SIGNER, NOW)
OPERATOR = operator_files(None, SIGNER, ("kohort.system.svc", "10.0.0.1"), NOW)


def signed_by(issuer: x509.Certificate, leaf: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(issuer)
    except (ValueError, InvalidSignature):
        return False
    return True


def trusts(bundle: bytes, certificate: bytes) -> bool:
    """Whether one of the authorities in the bundle signed the certificate."""
    leaf = x509.load_pem_x509_certificate(certificate)
    return any(signed_by(issuer, leaf) for issuer in x509.load_pem_x509_certificates(bundle))


@given(st.integers(0, 59))
@settings(max_examples=10)
def test_what_is_good_for_a_third_of_its_life_is_kept(days: int) -> None:
    later = NOW + timedelta(days=days)
    assert authority(SIGNER, later) == SIGNER
    assert gateway_files(GATEWAY, SIGNER, later) == GATEWAY
    assert operator_files(OPERATOR, SIGNER, ("kohort.system.svc", "10.0.0.1"), later) == OPERATOR


def test_a_certificate_is_replaced_before_it_ends() -> None:
    later = NOW + LEAF_LIFE * 0.7
    renewed = gateway_files(GATEWAY, SIGNER, later)
    assert renewed["tls.crt"] != GATEWAY["tls.crt"]
    assert trusts(SIGNER["ca.crt"], renewed["tls.crt"])


def test_a_new_authority_leaves_the_old_one_trusted_and_its_certificates_in_use() -> None:
    later = NOW + AUTHORITY_LIFE * 0.7
    old = gateway_files(None, SIGNER, later)
    signer = authority(SIGNER, later)
    assert signer["tls.crt"] != SIGNER["tls.crt"]
    kept = gateway_files(old, signer, later)
    assert kept["tls.crt"] == old["tls.crt"]
    assert kept["ca.crt"] == signer["ca.crt"]
    for files in (kept, gateway_files(None, signer, later)):
        assert trusts(signer["ca.crt"], files["tls.crt"])


def test_an_authority_that_has_ended_is_trusted_no_more() -> None:
    signer = authority(SIGNER, NOW + AUTHORITY_LIFE + timedelta(days=1))
    assert len(x509.load_pem_x509_certificates(signer["ca.crt"])) == 1


def test_an_operator_that_has_another_address_gets_another_certificate() -> None:
    moved = operator_files(OPERATOR, SIGNER, ("kohort.system.svc", "10.0.0.2"), NOW)
    assert moved["tls.crt"] != OPERATOR["tls.crt"]
    names = x509.load_pem_x509_certificate(moved["tls.crt"]).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["kohort-operator", "kohort.system.svc"]


def test_a_secret_that_was_damaged_is_made_anew() -> None:
    assert trusts(SIGNER["ca.crt"], gateway_files({"tls.crt": b"nonsense"}, SIGNER, NOW)["tls.crt"])


def test_a_secret_without_a_key_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="delete it"):
        Identity.of({"ca.crt": b"", "tls.crt": b""})


def test_a_private_key_is_not_shown() -> None:
    assert "PRIVATE" not in repr(Identity.of(GATEWAY))
