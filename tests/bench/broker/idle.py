#!/usr/bin/env python3
"""What connections cost a broker: resident memory of idle ones, CPU of TLS handshakes.

    idle.py --pid PID --port PORT [--count N] [--tls CA CERT KEY] [--keep-alive S]        memory of N idle connections
    idle.py --pid PID --port PORT --handshakes N --tls CA CERT KEY                        CPU of N full handshakes

Memory: N clients connect (MQTT 3.1.1, keep alive), stay, and resident memory of PID is compared with what it was before. A
hundred connect and leave first, so that what exists once is not counted. Prints one line of JSON.
"""
import argparse
import json
import os
import selectors
import socket
import ssl
import time


def resident(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def cpu(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connect_packet(name, keep_alive):
    body = b"\0\4MQTT\4\2" + keep_alive.to_bytes(2, "big") + len(name).to_bytes(2, "big") + name
    return b"\x10" + bytes([len(body)]) + body


def context(files):
    if files is None:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(files[0])
    made.load_cert_chain(files[1], files[2])
    made.check_hostname = False
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    return made


def source(number):
    """Loopback has as many addresses as are wanted; each has its own ports."""
    return (f"127.0.{1 + number // 10000}.1", 0)


def opened(args, tls, name, number):
    raw = socket.create_connection((args.host, args.port), timeout=30, source_address=source(number))
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream = tls.wrap_socket(raw, server_hostname="broker1") if tls else raw
    stream.sendall(connect_packet(name.encode(), args.keep_alive))
    answer = b""
    while len(answer) < 4:
        got = stream.recv(4 - len(answer))
        if not got:
            raise SystemExit(f"connection {number} was closed")
        answer += got
    if answer != b"\x20\x02\x00\x00":
        raise SystemExit(f"connection {number}: CONNACK {answer.hex()}")
    return stream


def settle(pid):
    last = resident(pid)
    while True:
        time.sleep(0.5)
        now = resident(pid)
        if abs(now - last) < 64:
            return now
        last = now


def idle(args, tls):
    for stream in [opened(args, tls, f"warm-{number}", number) for number in range(100)]:
        stream.close()
    before = settle(args.pid)
    streams = [opened(args, tls, f"idle-client-{number:06}", number) for number in range(args.count)]
    after = settle(args.pid)
    # They are still there: none has been closed.
    waiting = selectors.DefaultSelector()
    for stream in streams:
        waiting.register(stream, selectors.EVENT_READ)
    closed = len(waiting.select(timeout=0))
    return {
        "connections": len(streams),
        "closed": closed,
        "resident_kb_before": before,
        "resident_kb_after": after,
        "bytes_each": round((after - before) * 1024 / len(streams)),
    }


def handshakes(args, tls):
    for number in range(50):
        opened(args, tls, f"warm-{number}", number).close()
    before = cpu(args.pid)
    began = time.monotonic()
    for number in range(args.handshakes):
        opened(args, tls, f"c{number}", number).close()
    took = time.monotonic() - began
    used = cpu(args.pid) - before
    return {
        "handshakes": args.handshakes,
        "cpu_seconds": round(used, 3),
        "per_cpu_second": round(args.handshakes / used) if used else None,
        "per_second": round(args.handshakes / took),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--handshakes", type=int)
    parser.add_argument("--keep-alive", type=int, default=900)
    parser.add_argument("--tls", nargs=3, metavar=("CA", "CERT", "KEY"))
    args = parser.parse_args()
    tls = context(args.tls)
    result = handshakes(args, tls) if args.handshakes else idle(args, tls)
    print(json.dumps({"tls": bool(tls), **result}))


if __name__ == "__main__":
    main()
