"""A certificate of this machine's own, made when a page is served beyond it: WebXR needs HTTPS, and so does a token.

No browser knows who signed it, so it warns once; the fingerprint that is printed is what to compare. It lives as long
as the process: the key is nobody else's, and is not kept.
"""

from __future__ import annotations

import datetime
import importlib.util
import ipaddress
import ssl
import tempfile
from pathlib import Path

from ..errors import PoiseError

DAYS = 30


def server_context(names: list[str]) -> tuple[ssl.SSLContext, str]:
    """TLS for a server of these host names and addresses, and its certificate's SHA-256 fingerprint."""
    if importlib.util.find_spec("cryptography") is None:
        raise PoiseError("HTTPS needs cryptography, which is not installed: pip install 'poise[teleop]'")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Poise teleoperation")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                               serialization.NoEncryption())  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:  # readable by its owner alone, and gone in a moment
        file = Path(folder) / "both.pem"
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + secret)
        context.load_cert_chain(file)
    return context, certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def _general_name(name: str):
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
