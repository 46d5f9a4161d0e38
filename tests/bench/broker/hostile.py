#!/usr/bin/env python3
"""What hostile clients cost a broker, beside mosquitto, on loopback: CPU, memory, and how long a client that is in waits meanwhile.

    hostile.py BIN/evermq-broker [WORK,...]

Some 20 s for each broker. Prints a table: processor time of the broker, growth of its resident memory at most and after everybody has gone,
the longest time that a client which is in waited for the answer to a PINGREQ, one in 20 ms. The attackers are slow (this program): CPU is to be
read for each of what they did, not for each second.
"""

import os
import pathlib
import shutil
import socket
import ssl
import statistics
import sys
import tempfile
import threading
import time

import brokers


def cpu(pid):
    """Processor time that it has used, in seconds."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def text(value):
    raw = value.encode()
    return len(raw).to_bytes(2, "big") + raw


def integer(value):
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def packet(first, body):
    return bytes([first]) + integer(len(body)) + body


def connect(name, clean=True, expiry=0, level=5, more=b""):
    properties = (b"\x11" + expiry.to_bytes(4, "big") if expiry else b"") + more
    section = integer(len(properties)) + properties if level == 5 else b""
    return packet(0x10, text("MQTT") + bytes([level, 2 if clean else 0, 0, 0]) + section + text(name))


def read(stream, length):
    got = b""
    while len(got) < length:
        part = stream.recv(length - len(got))
        if not part:
            raise ConnectionError("closed")
        got += part
    return got


def read_packet(stream):
    first, length, shift = read(stream, 1), 0, 0
    while True:
        byte = read(stream, 1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return first + read(stream, length)


def plain(broker, name, level=5, **how):
    stream = socket.create_connection(("127.0.0.1", broker.port), timeout=30)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.sendall(connect(name, level=level, **how))
    read_packet(stream)
    return stream


def subscribe(stream, filters, qos, level=5):
    body = b"\0\1" + (b"\0" if level == 5 else b"") + b"".join(text(filter) + bytes([qos]) for filter in filters)
    stream.sendall(packet(0x82, body))
    read_packet(stream)


class Watch(threading.Thread):
    """A client that is in, and a look at the broker's memory."""

    def __init__(self, broker):
        super().__init__(daemon=True)
        self.broker, self.waits, self.most, self.done = broker, [], 0, False
        self.stream = plain(broker, "watch")
        self.start()

    def run(self):
        while not self.done:
            begin = time.monotonic()
            self.stream.sendall(b"\xc0\0")
            read(self.stream, 2)
            self.waits.append(time.monotonic() - begin)
            self.most = max(self.most, self.broker.resident())
            time.sleep(0.02)


def several(count, work):
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def tried(work):
    try:
        work()
    except OSError:
        pass


def connects(broker):
    """Clients that connect and go, from four threads."""
    each = 1000

    def come(number):
        for turn in range(each):
            tried(lambda: plain(broker, f"f{number}-{turn}").close())

    several(4, come)
    return 4 * each, "CONNECT and gone"


def guess(broker, address):
    """One wrong password from this address; what came back."""
    name = text("MQTT") + bytes([5, 0xC2, 0, 0]) + b"\0" + text("") + text("anna") + text("wrong")
    with socket.create_connection(("127.0.0.1", broker.port), timeout=30, source_address=(address, 0)) as stream:
        stream.sendall(packet(0x10, name))
        return read_packet(stream)


def passwords(broker):
    """Wrong passwords, from one address; 127.0.0.1 is the lb's, which stands for many."""
    return guesses(broker, 500, lambda number, turn: "127.0.0.2"), "wrong password from one address"


def passwords_from_everywhere(broker):
    """Wrong passwords, each from another address."""
    return guesses(broker, 100, lambda number, turn: f"127.1.{number}.{turn + 1}"), "wrong password, each from another address"


def guesses(broker, each, address):
    def come(number):
        for turn in range(each):
            tried(lambda: guess(broker, address(number, turn)))

    several(4, come)
    return 4 * each


def hellos(broker):
    """ClientHellos; what the broker answers is read and not taken up."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello, each = outgoing.read(), 500

    def come(_):
        def one():
            with socket.create_connection(("127.0.0.1", broker.tls_port), timeout=10) as stream:
                stream.sendall(hello)
                stream.recv(4096)

        for _ in range(each):
            tried(one)

    several(4, come)
    return 4 * each, "ClientHello and gone"


def half_open(broker):
    """Connections to the TLS port with the first bytes of a ClientHello, which then say nothing."""
    held = []
    for _ in range(900):
        stream = socket.create_connection(("127.0.0.1", broker.tls_port), timeout=10)
        tried(lambda: stream.sendall(b"\x16\x03\x01\x02\x00\x01"))
        held.append(stream)
    time.sleep(1)
    return len(held), "half a handshake, held"


def slow(broker):
    """Clients with the beginning of a PUBLISH of a megabyte, and a byte more now and then."""
    streams = [plain(broker, f"s{number}") for number in range(500)]
    for stream in streams:
        stream.sendall(b"\x30\xf0\xff\x3f\x00\x01t\x00xxx")
    for _ in range(10):
        for stream in streams:
            stream.sendall(b"x")
    time.sleep(0.5)
    return len(streams), "half a PUBLISH, held"


def wildcards(broker):
    """20 clients with all 256 filters that match one topic of eight levels, and 500 messages to it."""
    filters = ["/".join("+" if mask >> level & 1 else "a" for level in range(8)) for mask in range(256)]
    streams = [plain(broker, f"w{number}") for number in range(20)]
    for stream in streams:
        subscribe(stream, filters, 0)
        threading.Thread(target=lambda stream=stream: tried(lambda: swallow(stream)), daemon=True).start()
    publisher = plain(broker, "p")
    for number in range(500):
        publisher.sendall(packet(0x32, text(filters[0]) + (number + 1).to_bytes(2, "big") + b"\0x"))
        read_packet(publisher)
    return 500, "message that 5,120 filters match"


def swallow(stream):
    while stream.recv(65536):
        pass


def levels(broker):
    """Topics of 65,535 levels, published and subscribed to."""
    deep = "/" * 65535
    for number in range(200):
        def one():
            stream = plain(broker, "d")
            stream.sendall(packet(0x32, text(deep) + b"\0\1\0x"))
            read_packet(stream)
            stream.sendall(packet(0x82, b"\0\2\0" + text(deep) + b"\0"))
            read_packet(stream)
            stream.close()

        tried(one)
    return 200, "PUBLISH and SUBSCRIBE of 65,535 levels"


def properties(broker):
    """Messages of a megabyte of user properties for a client that is away."""
    away = plain(broker, "away", clean=False, expiry=600)
    subscribe(away, ["t"], 1)
    away.close()
    publisher = plain(broker, "p")
    pairs = b"\x26\0\0\0\0" * 200_000
    for number in range(1, 41):
        publisher.sendall(packet(0x32, text("t") + number.to_bytes(2, "big") + integer(len(pairs)) + pairs))
        read_packet(publisher)
    return 40, "message of 200,000 user properties, for one who is away"


def identifiers(broker):
    """65,535 messages of QoS 2 (3.1.1) that are never released."""
    stream = plain(broker, "i", level=4)
    for begin in range(1, 65536, 255):
        numbers = range(begin, min(begin + 255, 65536))
        stream.sendall(b"".join(packet(0x34, text("t") + number.to_bytes(2, "big") + b"x") for number in numbers))
        for _ in numbers:
            read_packet(stream)
    time.sleep(0.2)
    return 65535, "message of QoS 2, never released"


WORKS = {work.__name__: work for work in (connects, passwords, passwords_from_everywhere, hellos, half_open, slow, wildcards, levels, properties, identifiers)}


def main():
    programs = {"evermq": pathlib.Path(sys.argv[1]).resolve(), "mosquitto": pathlib.Path(shutil.which("mosquitto") or "/usr/sbin/mosquitto")}
    only = sys.argv[2].split(",") if len(sys.argv) > 2 else list(WORKS)
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        directory.chmod(0o755)
        tls = directory / "tls"
        tls.mkdir()
        brokers.certificates(tls)
        print("| work | broker | done | CPU, ms for each | MB more at most | MB more after | longest wait, ms | median wait, ms |")
        print("|---|---|---|---|---|---|---|---|")
        for work in only:
            for kind in programs:
                broker = brokers.KINDS[kind](programs[kind], directory / f"{work}-{kind}", tls, passwords=work.startswith("passwords"))
                # What exists once is not counted.
                for _ in range(20):
                    plain(broker, "first").close()
                watch = Watch(broker)
                time.sleep(0.3)
                watch.waits.clear()
                before, used = broker.resident(), cpu(broker.pid)
                result, said = None, ""
                try:
                    result = WORKS[work](broker)
                except OSError as error:
                    said = f" ({error})"
                used = cpu(broker.pid) - used
                time.sleep(1.0)
                watch.done = True
                watch.join(10)
                alive = "" if broker.process.poll() is None else ", DIED"
                done, what = result or (1, "failed" + said)
                after = broker.resident() if not alive else 0
                mb = lambda size: f"{(size - before) / 1e6:.1f}"
                waits = watch.waits or [0]
                print(f"| {work}: {what} | {kind}{alive} | {done} | {used / done * 1000:.3f} | {mb(watch.most)} | {mb(after)} | {max(waits) * 1000:.0f} | {statistics.median(waits) * 1000:.2f} |", flush=True)
                broker.close()


if __name__ == "__main__":
    main()
