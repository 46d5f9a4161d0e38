#!/usr/bin/env python3
"""Records the PROXY protocol headers that HAProxy and nginx send, one `.hex` file for each.

Needs Debian's `haproxy`, `nginx`, `libnginx-mod-stream` and `openssl`. Everything runs on the loopback interface, in a
directory that is removed again. Overwrites the `.hex` files beside this script.
"""

import pathlib
import socket
import ssl
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).parent
LINE = b"hello\n"


def free_port(family=socket.AF_INET):
    with socket.socket(family) as probe:
        probe.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        return probe.getsockname()[1]


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def certificates(at):
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=test CA", "-keyout", at / "ca.key", "-out", at / "ca.crt")
    for name, subject in [("server", "/CN=mqtt.example.org"), ("client", "/C=DE/O=Plant 7/CN=device-17")]:
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject,
            "-keyout", at / f"{name}.key", "-out", at / f"{name}.csr")
        run("openssl", "x509", "-req", "-in", at / f"{name}.csr", "-CA", at / "ca.crt", "-CAkey", at / "ca.key",
            "-CAcreateserial", "-days", "2", "-out", at / f"{name}.crt")
    (at / "server.pem").write_text((at / "server.crt").read_text() + (at / "server.key").read_text())


def received(sink, send):
    """What comes at the sink before the line that the client sends; all of it if it sends none."""
    sink.settimeout(5)
    keep = send()
    connection, _ = sink.accept()
    with connection:
        connection.settimeout(0.5)
        found = b""
        try:
            while LINE not in found and (chunk := connection.recv(65536)):
                found += chunk
        except (TimeoutError, ConnectionResetError):
            pass  # A health check resets its connection.
    if keep:
        keep.close()
    return found.removesuffix(LINE)


def client(address, tls=None):
    def send():
        connection = socket.create_connection(address)
        if tls:
            connection = tls.wrap_socket(connection, server_hostname="mqtt.example.org")
        connection.sendall(LINE)
        return connection

    return send


def served(words, address, family):
    """Starts a proxy and waits until it listens."""
    program = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if program.poll() is not None:
            raise SystemExit(f"{words} ended")
        with open(f"/proc/net/tcp{'6' if family == socket.AF_INET6 else ''}") as table:
            if any(line.split()[1].endswith(f":{address[1]:04X}") and line.split()[3] == "0A" for line in table.readlines()[1:]):
                return program
        time.sleep(0.02)
    raise SystemExit(f"{words} does not listen")


HAPROXY = """
global
  maxconn 20
defaults
  mode tcp
  timeout connect 5s
  timeout client 5s
  timeout server 5s
listen one
  unique-id-format "connection-1"
  bind {listen} {bind}
  {check}
  server sink 127.0.0.1:{sink} {server}
"""

NGINX = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; pid {at}/nginx.pid; error_log {at}/error.log;
events {{ worker_connections 20; }}
stream {{ server {{ listen {listen}; proxy_pass 127.0.0.1:{sink}; proxy_protocol on; }} }}
"""

TLS = "ssl crt {at}/server.pem ca-file {at}/ca.crt verify {verify} alpn mqtt"
ALL = "ssl,cert-cn,ssl-cipher,cert-sig,cert-key,authority,crc32c,unique-id"
V4, V6 = socket.AF_INET, socket.AF_INET6
# File, program, family, its `bind`, its `server`, whether the client has a certificate (None: no TLS).
CASES = [
    ("haproxy-v1", "haproxy", V4, "", "send-proxy", None),
    ("haproxy-v1-ipv6", "haproxy", V6, "", "send-proxy", None),
    ("haproxy-v2", "haproxy", V4, "", "send-proxy-v2", None),
    ("haproxy-v2-ipv6", "haproxy", V6, "", "send-proxy-v2", None),
    ("haproxy-v2-crc32c-unique-id", "haproxy", V4, "", "send-proxy-v2 proxy-v2-options crc32c,unique-id", None),
    ("haproxy-v2-ssl-cn", "haproxy", V4, TLS.format(at="{at}", verify="required"), "send-proxy-v2-ssl-cn", True),
    ("haproxy-v2-ssl-all", "haproxy", V6, TLS.format(at="{at}", verify="required"), f"send-proxy-v2 proxy-v2-options {ALL}", True),
    ("haproxy-v2-ssl-no-certificate", "haproxy", V4, TLS.format(at="{at}", verify="optional"), "send-proxy-v2-ssl-cn", False),
    ("haproxy-v2-check", "haproxy", V4, "", "check inter 200ms send-proxy-v2", "check"),
    ("nginx-v1", "nginx", V4, None, None, None),
    ("nginx-v1-ipv6", "nginx", V6, None, None, None),
]

with tempfile.TemporaryDirectory() as directory:
    at = pathlib.Path(directory)
    at.chmod(0o755)
    certificates(at)
    for file, program, family, bind, server, certificate in CASES:
        sink = socket.create_server(("127.0.0.1", 0))
        host = "127.0.0.1" if family == V4 else "::1"
        address = (host, free_port(family))
        listen = f"{host}:{address[1]}" if family == V4 else f"[{host}]:{address[1]}"
        sink_port = sink.getsockname()[1]
        check = "option tcp-check\n  tcp-check connect send-proxy\n  tcp-check expect string hello" if certificate == "check" else ""
        if program == "haproxy":
            (at / "proxy.cfg").write_text(HAPROXY.format(listen=listen, bind=bind.format(at=at), sink=sink_port, server=server, check=check))
            words = ["haproxy", "-db", "-f", at / "proxy.cfg"]
        else:
            (at / "proxy.cfg").write_text(NGINX.format(listen=listen, at=at, sink=sink_port))
            words = ["nginx", "-p", at, "-c", at / "proxy.cfg"]
        tls = None
        if certificate in (True, False):
            tls = ssl.create_default_context(cafile=at / "ca.crt")
            tls.check_hostname = False
            tls.set_alpn_protocols(["mqtt"])
            if certificate:
                tls.load_cert_chain(at / "client.crt", at / "client.key")
        process = served(words, address, family)
        try:
            send = (lambda: None) if certificate == "check" else client(address, tls)
            header = received(sink, send)
        finally:
            process.terminate()
            process.wait()
            sink.close()
        what = {"haproxy": f"haproxy: bind {bind}, server {server}".replace("{at}/", ""), "nginx": "nginx: proxy_protocol on"}[program]
        (HERE / f"{file}.hex").write_text(f"# {what}\n{header.hex(' ')}\n")
        print(file, len(header), header[:70])
