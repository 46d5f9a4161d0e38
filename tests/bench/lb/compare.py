"""evermq-lb, nginx stream and HAProxy in turn under the same load: CPU of the balancer, times, memory. See `run`."""

import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import peers

BIN = pathlib.Path(sys.argv[1])
ROUNDS = int(os.environ.get("ROUNDS", "3"))
ONLY = os.environ.get("WORK", "")
OUT = pathlib.Path(os.environ.get("OUT", BIN.parent / "bench-lb.json"))
US, RATE = "CPU us each", "per second"

# name: title, TLS, arguments, (key, unit, digits) of each figure, the first one is compared; {peer: at most this share of the peer's}
WORKS = {
    "connect": ("new connection, passthrough", False, ["connect"], [("cpu_us", US, 1)], {"haproxy": 0.78, "nginx": 0.88}),
    "echo": ("64-byte echoes, saturated", False, ["echo"], [("cpu_us", US, 2), ("p99_us", "p99 us", 0), ("per_second", RATE, 0)], {"haproxy": 0.75, "nginx": 0.78}),
    "paced": ("64-byte echoes, 20,000/s", False, ["paced"], [("cpu_us", US, 2), ("p50_us", "p50 us", 0), ("p99_us", "p99 us", 0)], {"haproxy": 0.80, "nginx": 0.88}),
    "bulk": ("bulk, 8 connections", False, ["bulk"], [("cpu_s_per_gb", "CPU s per GB", 3), ("gb_per_second", "GB/s", 2)], {"haproxy": 0.5, "nginx": 0.65}),
    "tls-handshake": ("mutual TLS 1.3 handshake, full", True, ["connect", "--count", "1500"], [("cpu_us", US, 0)], {"nginx": 0.28, "haproxy-new": 0.75}),
    "tls-resumed": ("mutual TLS 1.3 handshake, resumed", True, ["connect", "--count", "2500", "--resume"], [("cpu_us", US, 0), ("resumed", "resumed", 0)], {"haproxy-new": 0.75}),
    "tls-echo": ("64-byte echoes, TLS ended", True, ["echo"], [("cpu_us", US, 2), ("p99_us", "p99 us", 0), ("per_second", RATE, 0)], {"haproxy": 0.75}),
    "tls-bulk": ("bulk, 8 connections, TLS ended", True, ["bulk"], [("cpu_s_per_gb", "CPU s per GB", 3), ("gb_per_second", "GB/s", 2)], {"haproxy-new": 0.7}),
    "idle": ("idle connection, passthrough", False, ["idle", "--count", str(peers.CONNECTIONS - 100)], [("bytes_each", "bytes", 0), ("connections", "connections", 0)], {}),
    "tls-idle": ("idle connection, TLS ended", True, ["idle", "--count", "4000"], [("bytes_each", "bytes", 0), ("connections", "connections", 0)], {}),
}
# Bytes; these are not shares of a peer's.
MEMORY = {"idle": 1000, "tls-idle": 5000}
# Paced echoes have a second target: the 99th percentile beside HAProxy's.
P99_SHARE = 0.8


def chosen():
    names = [name for name in WORKS if not ONLY or name in ONLY.split(",")]
    if not names:
        raise SystemExit(f"WORK is one or more of: {','.join(WORKS)}")
    return names


def run(work, balancer, certificates):
    _, tls, arguments, _, _ = WORKS[work]
    address = f"127.0.0.1:{balancer.tls_port if tls else balancer.port}"
    words = [arguments[0], address, *arguments[1:]]
    if balancer.pid:
        words += ["--pid", balancer.pid]
    if tls:
        words += ["--ca", certificates / "ca.crt", "--cert", certificates / "client.crt", "--key", certificates / "client.key"]
    result = peers.bench(BIN, *words)
    time.sleep(0.3)
    return result


class Direct:
    """No balancer at all: the first backend."""

    def __init__(self, port):
        self.name, self.port, self.pid = "direct", port, None


def main():
    works, programs = chosen(), {"evermq-lb": BIN / "evermq-lb", **peers.wanted_peers()}
    results = {}
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        peers.certificates(directory, peers.HOSTS)
        ports = peers.Ports()
        backend, plain = (ports.take("127.0.0.1", "127.0.0.2") for _ in range(2))
        backends = [
            subprocess.Popen([BIN / "lb-bench", "backend", f"{address}:{backend}", f"{address}:{plain}"])
            for address in ("127.0.0.1", "127.0.0.2")
        ]
        start = lambda name: peers.start(name, programs[name], directory, ports, backend, plain)
        try:
            time.sleep(0.3)
            # Memory of programs that have done nothing else.
            for work in works:
                for balancer in programs if work in MEMORY else []:
                    running = start(balancer)
                    results.setdefault((work, balancer), []).append(run(work, running, directory))
                    running.stop()
            running = [start(name) for name in programs]
            try:
                for _ in range(ROUNDS):
                    for work in works:
                        if work in MEMORY:
                            continue
                        for balancer in [*running, *([] if WORKS[work][1] else [Direct(backend)])]:
                            results.setdefault((work, balancer.name), []).append(run(work, balancer, directory))
            finally:
                for balancer in running:
                    balancer.stop()
        finally:
            for process in backends:
                process.kill()
                process.wait()
    report(results, works, list(programs), peers.versions(BIN, {name: path for name, path in programs.items() if name != "evermq-lb"}))


def median(results, work, balancer, key):
    values = [result[key] for result in results.get((work, balancer), []) if result.get(key) is not None]
    return statistics.median(values) if values else None


def ratio(results, work, peer, key):
    """Ours to theirs within each round, because what else the machine does changes between rounds; the median of that."""
    pairs = zip(results[(work, "evermq-lb")], results[(work, peer)])
    return statistics.median(ours[key] / theirs[key] for ours, theirs in pairs)


def report(results, works, balancers, versions):
    columns = [*balancers, "direct"]
    machine = f"{os.cpu_count()} cores, Linux {os.uname().release}, {datetime.date.today()}"
    print(f"\n{machine}; medians of {ROUNDS} rounds (memory: one run of a fresh program); ratios are ours to theirs in the same round.")
    print("; ".join(versions.values()), "\n")
    print("| work | " + " | ".join(columns) + " | " + " | ".join(f"to {peer}" for peer in balancers[1:]) + " |")
    print("|---" * (len(columns) + len(balancers)) + "|")
    verdicts = []
    for work in works:
        title, _, _, figures, targets = WORKS[work]
        for number, (key, unit, digits) in enumerate(figures):
            values = {name: median(results, work, name, key) for name in columns}
            ours = values["evermq-lb"]
            cells = [f"{values[name]:,.{digits}f}" if values[name] is not None else "" for name in columns]
            ratios = {peer: ratio(results, work, peer, key) for peer in balancers[1:] if values[peer]}
            shown = [f"{ratios[peer]:.2f}" if peer in ratios else "" for peer in balancers[1:]]
            print(f"| {title if number == 0 else ''}: {unit} | " + " | ".join(cells + shown) + " |")
            if number == 0:
                for peer, share in targets.items():
                    if peer in ratios:
                        verdicts.append(verdict(f"{title}, {unit}: {peer}", ratios[peer], share))
                if work in MEMORY:
                    verdicts.append(verdict(f"{title}, {unit}", ours, MEMORY[work]))
            if work == "paced" and key == "p99_us" and "haproxy" in ratios:
                verdicts.append(verdict(f"{title}, p99: haproxy", ratios["haproxy"], P99_SHARE))
    print()
    for line in verdicts:
        print(line["text"])
    OUT.write_text(json.dumps({
        "machine": machine,
        "versions": versions,
        "rounds": ROUNDS,
        "medians": {work: {name: {key: median(results, work, name, key) for key, *_ in WORKS[work][3]} for name in columns if (work, name) in results} for work in works},
        "targets": verdicts,
        "runs": {f"{work} {name}": runs for (work, name), runs in results.items()},
    }, indent=1))
    print(f"\nas JSON: {OUT}")


def verdict(title, value, most):
    reached = value <= most
    shown = f"{value:,.2f}" if most < 100 else f"{value:,.0f}"
    return {"text": f"{'reached' if reached else 'MISSED '}  {title}: {shown}, at most {most:,}", "value": value, "at_most": most, "reached": reached}


main()
