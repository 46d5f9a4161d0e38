#!/usr/bin/env python3
"""Records what TLS clients say first, one `.hex` file for each: all bytes until the client waits for an answer.

Needs Debian's `openssl`, `mosquitto-clients`, `curl` and `wget` (GnuTLS). Overwrites the `.hex` files beside this script.
"""

import pathlib
import socket
import ssl
import subprocess
import threading

HERE = pathlib.Path(__file__).parent
NAME = "mqtt.example.org"


def comes(listener):
    """The bytes of one connection up to the first silence."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(0.5)
        found = b""
        try:
            while chunk := connection.recv(65536):
                found += chunk
        except TimeoutError:
            pass
        return found


def python(port, **settings):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = settings.get("most", ssl.TLSVersion.MAXIMUM_SUPPORTED)
    if "alpn" in settings:
        context.set_alpn_protocols(settings["alpn"])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        try:
            context.wrap_socket(connection, server_hostname=settings.get("name"))
        except OSError:
            pass


def command(text):
    def run(port):
        words = text.format(port=port, name=NAME).split()
        subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20)

    return text, run


CLIENTS = {
    "openssl-name-alpn": command("openssl s_client -connect 127.0.0.1:{port} -servername {name} -alpn mqtt,x-other"),
    "openssl-plain": command("openssl s_client -connect 127.0.0.1:{port} -noservername"),
    "openssl-upper-dot": command("openssl s_client -connect 127.0.0.1:{port} -servername MQTT.Example.ORG."),
    "openssl-tls12": command("openssl s_client -connect 127.0.0.1:{port} -servername {name} -tls1_2"),
    # OpenSSL cuts its ClientHello into records of this size.
    "openssl-fragments": command("openssl s_client -connect 127.0.0.1:{port} -servername {name} -split_send_frag 512 -max_send_frag 512 -alpn "
                                 + ",".join(f"protocol-number-{n:03}" for n in range(60)) + ",mqtt"),
    "mosquitto-pub-alpn": command("mosquitto_pub -h localhost -p {port} --capath /etc/ssl/certs --tls-alpn mqtt -t t -m m"),
    "mosquitto-pub": command("mosquitto_pub -h localhost -p {port} --capath /etc/ssl/certs -t t -m m"),
    "curl": command("curl -s -k --max-time 5 --connect-to {name}:443:127.0.0.1:{port} https://{name}/"),
    "wget-gnutls": command("wget -q -t 1 --no-check-certificate --timeout=5 -O /dev/null https://localhost:{port}/"),
    "python-name": ("ssl.create_default_context(), server_hostname", lambda port: python(port, name=NAME)),
    "python-address": ("ssl.create_default_context(), server_hostname=192.0.2.7", lambda port: python(port, name="192.0.2.7")),
    "python-tls12-alpn": (
        "ssl.create_default_context(), maximum_version TLSv1_2, ALPN mqtt",
        lambda port: python(port, name=NAME, most=ssl.TLSVersion.TLSv1_2, alpn=["mqtt"]),
    ),
}

for file, (what, run) in CLIENTS.items():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = threading.Thread(target=run, args=(listener.getsockname()[1],))
        client.start()
        found = comes(listener)
    client.join()
    what = what.replace(" -connect 127.0.0.1:{port}", "").replace(" -h localhost -p {port}", "").format(port="...", name=NAME)
    (HERE / f"{file}.hex").write_text(f"# {what}\n{found.hex(' ')}\n")
    print(file, len(found), found[:6].hex())
