"""Brokers of a kind, joined: what is published at the first one is to be had at all others."""

import json
import pathlib
import socket
import subprocess
import sys
import time

sys.path.append(str(pathlib.Path(__file__).parent.parent / "broker"))
from brokers import CONNECT, PORTS, Broker, EverMq, Mosquitto  # noqa: E402

ADDRESSES = [f"127.0.0.{number + 1}" for number in range(5)]


def certificates(directory):
    """A CA, and one certificate for all brokers, as servers and as each other's clients."""

    def openssl(line):
        subprocess.run(["openssl", *line.split()], cwd=directory, check=True, capture_output=True)

    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    openssl(f"req -x509 {key} -days 2 -subj /CN=ca -keyout ca.key -out ca.crt")
    openssl(f"req {key} -subj /CN=brokers -keyout broker.key -out broker.csr")
    names = ",".join(f"DNS:broker{number + 1},IP:{address}" for number, address in enumerate(ADDRESSES))
    (directory / "ext").write_text(f"subjectAltName={names}")
    openssl("x509 -req -in broker.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out broker.crt")


class MeshedEverMq(EverMq):
    """settings: index, count, peer_port, sync."""

    def configure(self):
        tls, index = self.tls_directory, self.settings["index"]
        hosts = "".join(
            f'[[hosts]]\nname = "broker{number + 1}"\naddress = "{address}"\nroles = ["broker"]\n'
            for number, address in enumerate(ADDRESSES[: self.settings["count"]])
        )
        # Nobody starts it, but a cluster has one.
        hosts += '[[hosts]]\nname = "lb1"\naddress = "127.0.0.9"\nroles = ["lb"]\n'
        self.write("evermq.toml", f"""
[cluster]
name = "bench"
run_dir = "{self.directory}/run"
log_level = "error"
[broker]
listen = "{ADDRESSES[index]}:{self.tls_port}"
listen_plain = "127.0.0.1:{self.port}"
peer_port = {self.settings["peer_port"]}
[broker.store]
path = "{self.directory}/store"
sync = "{self.settings["sync"]}"
[tls]
ca = "{tls}/ca.crt"
cert = "{tls}/broker.crt"
key = "{tls}/broker.key"
{hosts}""")

    def command(self):
        return [self.program, "--config", self.directory / "evermq.toml", "--host", f"broker{self.settings['index'] + 1}"]

    def peer(self):
        """What it says of the other one."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(5)
            control.connect(str(self.directory / "run" / "broker.sock"))
            control.sendall(b'{"request":"state"}\n')
            answer = b""
            while not answer.endswith(b"\n"):
                part = control.recv(65536)
                if not part:
                    raise OSError("the control socket was closed")
                answer += part
        return json.loads(answer)["ok"]["bridge"]["peers"][0]


class BridgedMosquitto(Mosquitto):
    """settings: to, those that it sends everything to."""

    def configure(self):
        super().configure()
        tls, to = self.tls_directory, self.settings["to"]
        path = self.directory / "conf"
        text = path.read_text().replace("broker1.", "broker.")
        for number, other in enumerate(to):
            text += f"""
connection mesh{number}
address 127.0.0.1:{other.tls_port}
topic # out 1
cleansession false
notifications false
bridge_cafile {tls}/ca.crt
bridge_certfile {tls}/broker.crt
bridge_keyfile {tls}/broker.key
"""
        path.write_text(text)


def subscriber(broker, topic):
    client = socket.create_connection(("127.0.0.1", broker.port), 5)
    client.sendall(CONNECT.replace(b"look", b"wait"))
    assert client.recv(4) == b"\x20\x02\x00\x00"
    client.sendall(bytes([0x82, len(topic) + 5, 0, 1, 0, len(topic)]) + topic + b"\0")
    assert client.recv(5)[0] == 0x90
    return client


def wait_until_joined(first, second, patience=20):
    """Publishes at the first until something comes at the second."""
    topic, deadline = b"joined", time.monotonic() + patience
    with subscriber(second, topic) as reader, socket.create_connection(("127.0.0.1", first.port), 5) as writer:
        writer.sendall(CONNECT.replace(b"look", b"tell"))
        reader.settimeout(0.1)
        while time.monotonic() < deadline:
            writer.sendall(bytes([0x30, len(topic) + 2, 0, len(topic)]) + topic)
            try:
                if reader.recv(64):
                    return
            except TimeoutError:
                pass
    raise RuntimeError(f"{first.name} does not pass messages on")


def joined(brokers):
    for other in brokers[1:]:
        wait_until_joined(brokers[0], other)
    return brokers


def evermq(programs, directory, tls, sync, count):
    peer_port, program = PORTS.take(), programs / "evermq-broker"

    def broker(index):
        settings = {"index": index, "count": count, "peer_port": peer_port, "sync": sync}
        return MeshedEverMq(program, directory / f"broker{index}", tls, **settings)

    return joined([broker(index) for index in range(count)])


def mosquitto(directory, tls, count):
    others = [BridgedMosquitto("mosquitto", directory / f"other{index}", tls, to=[]) for index in range(1, count)]
    return joined([BridgedMosquitto("mosquitto", directory / "first", tls, to=others), *others])


__all__ = ["Broker", "certificates", "evermq", "mosquitto"]
