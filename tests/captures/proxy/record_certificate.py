#!/usr/bin/env python3
"""Makes `python-v2-ssl-client-cert.hex`: a header with the client's certificate in it (PP2_SUBTYPE_SSL_CLIENT_CERT).

HAProxy's specification has that TLV since January 2026, but HAProxy does not send it yet. So the header is put together
by the package `proxy-protocol` (pip install proxy-protocol), which packs a TLV whatever its type; the certificate is
openssl's.
"""

import pathlib
import socket
import subprocess
import tempfile
from ipaddress import IPv4Address

from proxyprotocol.result import ProxyResultIPv4
from proxyprotocol.tlv import ProxyProtocolSSLTLV, ProxyProtocolTLV
from proxyprotocol.v2 import ProxyProtocolV2

HERE = pathlib.Path(__file__).parent
SSL_CLIENT_CERT = 0x28

with tempfile.TemporaryDirectory() as directory:
    at = pathlib.Path(directory)
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/C=DE/O=Plant 7/CN=device-17", "-addext", "subjectAltName=URI:urn:device:17,DNS:device-17.example",
             "-outform", "DER", "-keyout", str(at / "key"), "-out", str(at / "certificate")]
    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
    certificate = (at / "certificate").read_bytes()

ssl = ProxyProtocolSSLTLV(init={SSL_CLIENT_CERT: certificate}, has_ssl=True, has_cert_conn=True, has_cert_sess=True,
                          verified=True, version="TLSv1.3", cn="device-17")
tlv = ProxyProtocolTLV(ssl=ssl, unique_id=b"connection-1")
source, destination = (IPv4Address("127.0.0.1"), 40000), (IPv4Address("127.0.0.1"), 8883)
header = ProxyProtocolV2().pack(ProxyResultIPv4(source, destination, protocol=socket.SOCK_STREAM, tlv=tlv))
what = "proxy-protocol 0.11.3 (Python): TLS 1.3, common name, certificate, unique identifier, CRC32c"
(HERE / "python-v2-ssl-client-cert.hex").write_text(f"# {what}\n{header.hex(' ')}\n")
print(len(header), header[:40])
