#!/usr/bin/env python3
"""Records keepalived's VRRP advertisements, one `.hex` file for each configuration: see README.md.

Two network namespaces, joined by a veth pair; keepalived in one, tcpdump in the other. Needs root and Debian's
`keepalived`, `tcpdump` and `iproute2`. Overwrites the `.hex` files beside this script, or those named as arguments.
"""

import pathlib
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
SENDER, RECEIVER = "capture-sender", "capture-receiver"
MAC = "02:00:0a:5a:00:01"
V4_ADDRESS = ["10.90.0.100/32 dev eth0"]
V4_ADDRESSES = ["10.90.0.102/32 dev eth0", "10.90.0.100/32 dev eth0", "10.90.0.101/32 dev eth0"]
V6_ADDRESSES = ["fe80::90:100/64 dev eth0", "fd90::100/64 dev eth0"]
V4_PEER = ["unicast_src_ip 10.90.0.1", "unicast_peer { 10.90.0.2 }"]
V6_PEER = ["unicast_src_ip fd90::1", "unicast_peer { fd90::2 }"]
PASSWORD = ["authentication {", "auth_type PASS", "auth_pass 1234pass", "}"]
SHORT_PASSWORD = ["authentication {", "auth_type PASS", "auth_pass abc", "}"]

V3, V2 = ["version 3", "advert_int 0.02"], ["version 2", "advert_int 1"]

# File, what it shows, lines of the configuration, virtual addresses.
CAPTURES = [
    ("v3-multicast", "priority 150, then priority 0 at the stop; 20 ms", V3, V4_ADDRESS),
    ("v3-unicast", "to a peer: its address stands in the pseudo-header", V3 + V4_PEER, V4_ADDRESS),
    ("v3-unicast-old-checksum", "to a peer, but 224.0.0.18 stands in the pseudo-header",
     V3 + V4_PEER + ["old_unicast_checksum"], V4_ADDRESS),
    ("v3-addresses", "three addresses, in the order of the configuration", V3, V4_ADDRESSES),
    ("v3-ipv6-multicast", "from the link-local address to ff02::12, hop limit 255", V3, V6_ADDRESSES),
    ("v3-ipv6-unicast", "from one global address to another; hop limit 64, as keepalived 2.2 leaves it to the kernel", V3 + V6_PEER, V6_ADDRESSES),
    ("v3-ipv6-unicast-ttl", "the same with unicast_ttl 255", V3 + V6_PEER + ["unicast_ttl 255"], V6_ADDRESSES),
    ("v3-ipv6-global", "the only virtual address is a global one", V3, V6_ADDRESSES[1:]),
    ("v2-multicast", "VRRP 2, 1 s, no authentication", V2, V4_ADDRESS),
    ("v2-unicast", "VRRP 2 to a peer", V2 + V4_PEER, V4_ADDRESS),
    ("v2-addresses", "VRRP 2, three addresses", V2, V4_ADDRESSES),
    ("v2-auth-pass", "VRRP 2, authentication type 1, password 1234pass", V2 + PASSWORD, V4_ADDRESS),
    ("v2-auth-pass-short", "VRRP 2, authentication type 1, password abc", V2 + SHORT_PASSWORD, V4_ADDRESS),
    ("v2-auth-pass-unicast", "VRRP 2 to a peer, password 1234pass", V2 + V4_PEER + PASSWORD, V4_ADDRESS),
    ("v2-auth-pass-addresses", "VRRP 2, three addresses, password 1234pass", V2 + PASSWORD, V4_ADDRESSES),
]


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def network():
    for namespace in (SENDER, RECEIVER):
        ip("netns", "add", namespace)
    ip("-n", SENDER, "link", "add", "eth0", "address", MAC, "type", "veth", "peer", "name", "eth0", "netns", RECEIVER)
    for namespace, number in ((SENDER, 1), (RECEIVER, 2)):
        ip("-n", namespace, "address", "add", f"10.90.0.{number}/24", "dev", "eth0")
        ip("-n", namespace, "address", "add", f"fd90::{number}/64", "dev", "eth0", "nodad")
        ip("-n", namespace, "link", "set", "lo", "up")
        ip("-n", namespace, "link", "set", "eth0", "up")
    # keepalived does not send from a link-local address that is tentative.
    until("the link-local address", lambda: " tentative" not in shown(SENDER) and "fe80::" in shown(SENDER))


def shown(namespace):
    return subprocess.run(["ip", "-n", namespace, "-6", "address"], check=True, capture_output=True, text=True).stdout


def until(what, condition):
    deadline = time.monotonic() + 15
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"waited in vain for {what}")
        time.sleep(0.02)


def record(lines, addresses, scratch):
    """The first and the last packet, without the Ethernet header."""
    config, log, capture = scratch / "keepalived.conf", scratch / "log", scratch / "capture"
    instance = ["state BACKUP", "interface eth0", "virtual_router_id 51", "priority 150", *lines]
    block = "\n  ".join(instance + ["virtual_ipaddress {"] + [f"  {address}" for address in addresses] + ["}"])
    config.write_text(f"vrrp_instance V {{\n  {block}\n}}\n")
    with log.open("w") as output, (scratch / "tcpdump.log").open("w") as trace:
        tcpdump = subprocess.Popen(
            ["ip", "netns", "exec", RECEIVER, "tcpdump", "-Z", "root", "-U", "-i", "eth0", "-w", capture, "proto 112"],
            stderr=trace)
        until("tcpdump", lambda: "listening on" in (scratch / "tcpdump.log").read_text())
        keepalived = subprocess.Popen(
            ["ip", "netns", "exec", SENDER, "keepalived", "--dont-fork", "--log-console", "--vrrp",
             "--use-file", config, "--pid", scratch / "pid", "--vrrp_pid", scratch / "vrrp.pid"],
            stdout=output, stderr=subprocess.STDOUT)
        until("adverts", lambda: len(packets(capture)) >= 3)
        keepalived.terminate()
        keepalived.wait()
        count = None
        while count != len(packets(capture)):
            count = len(packets(capture))
            time.sleep(0.2)
        tcpdump.terminate()
        tcpdump.wait()
    found = packets(capture)
    return found[0], found[-1]


def packets(capture):
    """The packets of a pcap file that is still written."""
    data = capture.read_bytes() if capture.exists() else b""
    found, at = [], 24
    while at + 16 <= len(data):
        length = struct.unpack_from("<I", data, at + 8)[0]
        if at + 16 + length > len(data):
            break
        found.append(data[at + 16 + 14:at + 16 + length])
        at += 16 + length
    return found


def parts(packet):
    """IP header, VRRP header, addresses one by one, and the authentication data of VRRP 2."""
    if packet[0] >> 4 == 4:
        header, size = (packet[0] & 15) * 4, 4
        packet = packet[:int.from_bytes(packet[2:4])]
    else:
        header, size = 40, 16
        packet = packet[:40 + int.from_bytes(packet[4:6])]
    cuts = [0, header, header + 8]
    for _ in range(packet[header + 3]):
        cuts.append(cuts[-1] + size)
    cuts.append(len(packet))
    return " ".join(packet[start:end].hex() for start, end in zip(cuts, cuts[1:]) if start < end)


def main():
    wanted = sys.argv[1:]
    network()
    try:
        for name, what, lines, addresses in CAPTURES:
            if wanted and name not in wanted:
                continue
            with tempfile.TemporaryDirectory() as scratch:
                first, last = record(lines, addresses, pathlib.Path(scratch))
            (HERE / f"keepalived-{name}.hex").write_text(f"# {what}\n{parts(first)}\n{parts(last)}\n")
            print(name)
    finally:
        for namespace in (SENDER, RECEIVER):
            ip("netns", "delete", namespace)


main()
