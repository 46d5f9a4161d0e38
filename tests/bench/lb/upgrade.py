"""A new binary, or a new configuration, under thousands of busy connections that pass through. See `run`.

evermq-lb is told to start itself anew (SIGUSR2) and gives its connections to the new process; nginx (SIGHUP) and HAProxy (SIGUSR2 to
its master) leave theirs with the old one. Which process has how many sockets is counted when the new one has been there for seconds.
"""

import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import peers

BIN = pathlib.Path(sys.argv[1])
CONNECTIONS = min(int(os.environ.get("CONNECTIONS", "9000")), peers.CONNECTIONS - 100)
RATE = int(os.environ.get("RATE", "9000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
OUT = pathlib.Path(os.environ.get("OUT", BIN.parent / "bench-lb-upgrade.json"))
# Before the upgrade, and until the counting after it.
QUIET, AFTER, REST = 3, 4, 2
SIGNALS = {"evermq-lb": signal.SIGUSR2, "nginx": signal.SIGHUP, "haproxy": signal.SIGUSR2, "haproxy-new": signal.SIGUSR2}


def sockets(pid):
    count = 0
    for link in pathlib.Path(f"/proc/{pid}/fd").glob("*"):
        try:
            count += os.readlink(link).startswith("socket:")
        except OSError:
            pass
    return count


def processes(balancer):
    """All processes of a balancer with their sockets: children, and whoever was started with its files."""
    found = {balancer.pid, *peers.descendants(balancer.pid)}
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if str(balancer.directory).encode() in (process / "cmdline").read_bytes():
                found.add(int(process.name))
        except OSError:
            pass
    return {pid: sockets(pid) for pid in sorted(found) if pathlib.Path(f"/proc/{pid}/fd").exists()}


def run(name, program, directory, ports, backend, plain):
    balancer = peers.start(name, program, directory, ports, backend, plain, upgradable=True)
    try:
        seconds = QUIET + AFTER + REST
        words = ["paced", f"127.0.0.1:{balancer.port}", "--connections", CONNECTIONS, "--rate", RATE, "--seconds", seconds]
        generator = subprocess.Popen(
            [str(BIN / "lb-bench"), *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=peers.raise_file_limit
        )
        line = generator.stderr.readline().strip()
        if line != "ready":
            raise SystemExit(f"the generator failed: {line} {generator.stderr.read()}")
        time.sleep(QUIET)
        before = processes(balancer)
        os.kill(balancer.pid, SIGNALS[name])
        time.sleep(AFTER)
        after = processes(balancer)
        output, errors = generator.communicate(timeout=120)
        if generator.returncode:
            raise SystemExit(f"the generator failed: {errors}")
        result = json.loads(output)
        # A process with a handful of sockets holds no client.
        result["with_old"] = sum(count for pid, count in after.items() if pid in before and count > 100) // 2
        result["with_new"] = sum(count for pid, count in after.items() if pid not in before and count > 100) // 2
        result["processes_after"] = len(after)
        return result
    finally:
        for pid in processes(balancer):
            if pid != balancer.pid:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        balancer.stop()


def main():
    programs = {"evermq-lb": BIN / "evermq-lb", **peers.wanted_peers()}
    results = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        peers.certificates(directory, peers.HOSTS)
        ports = peers.Ports()
        backend, plain = (ports.take("127.0.0.1", "127.0.0.2") for _ in range(2))
        backends = [
            subprocess.Popen([BIN / "lb-bench", "backend", f"{address}:{backend}", f"{address}:{plain}"])
            for address in ("127.0.0.1", "127.0.0.2")
        ]
        try:
            time.sleep(0.3)
            for balancer, program in programs.items():
                # What the peers do does not change from run to run.
                for _ in range(ROUNDS if balancer == "evermq-lb" else 1):
                    results[balancer].append(run(balancer, program, directory, ports, backend, plain))
                    time.sleep(1)
        finally:
            for process in backends:
                process.kill()
                process.wait()
    machine = f"{os.cpu_count()} cores, Linux {os.uname().release}, {datetime.date.today()}"
    print(f"\n{machine}; {CONNECTIONS} connections, {RATE} messages a second, 64 bytes there and back.\n")
    print("| balancer | run | dropped | without answer | longest wait of any message, ms | p99 ms | connections with the old process | with the new one |")
    print("|---|---|---|---|---|---|---|---|")
    for name, runs in results.items():
        for number, result in enumerate(runs, 1):
            print(f"| {name} | {number} | {result['lost']} | {result['unanswered']} | {result['longest_ms']:.0f} | {result['p99_us'] / 1e3:.1f} "
                  f"| {result['with_old']} | {result['with_new']} |")
            for why in result["lost_why"]:
                print(f"  dropped: {why}", file=sys.stderr)
    ours = results["evermq-lb"]
    reached = all(result["lost"] == 0 and result["with_new"] >= CONNECTIONS for result in ours)
    print(f"\n{'reached' if reached else 'MISSED '}  none dropped, all with the new process")
    longest = sorted(result["longest_ms"] for result in ours)[len(ours) // 2]
    print(f"{'reached' if longest <= 150 else 'MISSED '}  longest wait, median of {len(ours)}: {longest:.0f} ms, at most 150")
    OUT.write_text(json.dumps({"machine": machine, "connections": CONNECTIONS, "rate": RATE, "results": results}, indent=1))
    print(f"as JSON: {OUT}")


main()
