"""Runs evermq-lb, nginx and HAProxy in turn under lb-bench, prints medians and ratios. See `run`."""

import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
BIN = pathlib.Path(sys.argv[1])
ROUNDS = int(sys.argv[2])
BENCH = BIN / "examples" / "lb-bench"
WORKS = [
    # name, arguments after the address and the process, value shown, unit
    ("new connection", "connect", ["6000"], "cpu_us", "us each"),
    ("echo 64 B, saturated", "echo", ["2", "0"], "cpu_us", "us each"),
    ("echo 64 B at 20,000/s", "echo", ["2", "20000"], "cpu_us", "us each"),
    ("bulk, both ways", "bulk", ["2"], "cpu_s_per_gb_back", "s per GB back"),
    ("idle connection", "idle", ["4000"], "bytes_each", "bytes"),
]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def openssl(directory, line):
    subprocess.run(["openssl", *line.split()], cwd=directory, check=True, capture_output=True)


def certificates(directory):
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    openssl(directory, f"req -x509 {key} -days 2 -subj /CN=ca -keyout ca.key -out ca.crt")
    openssl(directory, f"req {key} -subj /CN=lb1 -keyout lb1.key -out lb1.csr")
    (directory / "lb1.ext").write_text("subjectAltName=DNS:lb1")
    signed = "x509 -req -in lb1.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile lb1.ext -out lb1.crt"
    openssl(directory, signed)


def evermq(directory, port, backends):
    # Two brokers on two addresses of loopback, with one port.
    file = directory / "evermq.toml"
    hosts = "".join(
        f'[[hosts]]\nname = "{name}"\naddress = "{address}"\nroles = ["{role}"]\n'
        for name, address, role in [("lb1", "127.0.0.9", "lb"), ("b1", "127.0.0.1", "broker"), ("b2", "127.0.0.2", "broker")]
    )
    file.write_text(
        f'[cluster]\nname = "bench"\nrun_dir = "{directory}/run"\nlog_level = "warn"\n'
        f'[lb]\nlisten = "127.0.0.1:{port}"\nworkers = 2\nmax_connections = 9500\n[broker]\nlisten = "0.0.0.0:{backends[0]}"\n'
        f'[tls]\nca = "ca.crt"\ncert = "{{host}}.crt"\nkey = "{{host}}.key"\n{hosts}'
    )
    return [BIN / "evermq-lb", "--config", file, "--host", "lb1"]


def from_template(name, directory, port, backends):
    text = (HERE / name).read_text()
    for word, value in [("DIR", directory), ("PORT", port), ("BACKEND1", backends[0]), ("BACKEND2", backends[1])]:
        text = text.replace(f"@{word}@", str(value))
    file = directory / name
    file.write_text(text)
    return file


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as stream:
            stream.settimeout(1)
            stream.sendall(b"x")
            return stream.recv(1) == b"x"
    except OSError:
        return False


def main():
    results = {}
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        certificates(directory)
        same = free_port()
        running = [subprocess.Popen([BENCH, "backend", f"127.0.0.{host}:{same}"]) for host in (1, 2)]
        try:
            # nginx and HAProxy get both backends on 127.0.0.1 and 127.0.0.2 as well.
            balancers = {}
            for balancer in ("evermq-lb", "nginx", "haproxy"):
                port = free_port()
                if balancer == "evermq-lb":
                    command = evermq(directory, port, (same, same))
                elif not shutil.which(balancer):
                    print(f"{balancer} is not installed: left out", file=sys.stderr)
                    continue
                elif balancer == "nginx":
                    command = ["nginx", "-c", from_template("nginx.conf", directory, port, (same, same))]
                else:
                    command = ["haproxy", "-q", "-db", "-f", from_template("haproxy.cfg", directory, port, (same, same))]
                process = subprocess.Popen(command)
                running.append(process)
                balancers[balancer] = (port, process.pid)
                deadline = time.monotonic() + 10
                while not answers(port):
                    assert time.monotonic() < deadline, f"{balancer} does not answer"
                    time.sleep(0.05)
            for _ in range(ROUNDS):
                for title, work, arguments, *_ in WORKS:
                    for balancer, (port, pid) in balancers.items():
                        line = [BENCH, work, f"127.0.0.1:{port}", str(pid), *arguments]
                        output = subprocess.run(line, check=True, capture_output=True, text=True).stdout
                        results.setdefault((title, balancer), []).append(json.loads(output))
                        time.sleep(0.3)
        finally:
            for process in running:
                process.send_signal(signal.SIGKILL if process.args[0] == BENCH else signal.SIGTERM)
            for process in running:
                process.wait(20)
    show(results, list(balancers))


def show(results, balancers):
    """The least disturbed run beside the median: on a busy machine the former is the steadier figure of what the work costs.
    Memory is what the first run of a program took; later ones find it allocated."""

    def values(title, balancer, key):
        return [run[key] for run in results[(title, balancer)]]

    print(f"{os.uname().release}, {os.cpu_count()} cores, {ROUNDS} rounds: median / least")
    for title, _, _, key, unit in WORKS:
        line = [f"{title} ({unit})"]
        for balancer in balancers:
            ours, theirs = values(title, "evermq-lb", key), values(title, balancer, key)
            if key == "bytes_each":
                line.append(f"{balancer} {theirs[0]:.0f}")
                continue
            text = f"{balancer} {statistics.median(theirs):.2f} / {min(theirs):.2f}"
            if "p99_us" in results[(title, balancer)][0]:
                text += f", p99 {statistics.median(values(title, balancer, 'p99_us')):.0f} us"
            if balancer != "evermq-lb":
                text += f" (ours {statistics.median(ours) / statistics.median(theirs):.2f}x / {min(ours) / min(theirs):.2f}x)"
            line.append(text)
        print("  |  ".join(line))


main()
