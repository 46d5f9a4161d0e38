"""evermq-lb and its peers, as programs that the benchmarks start, ask and stop."""

import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).parent
# Each relayed connection takes two descriptors, and every program needs some for itself.
FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
ROOM = 300
CONNECTIONS = min((FILES - ROOM) // 2, 30000)
# Free of the ports that the kernel gives to connections going out.
FIRST_PORT = 18000


class Ports:
    """Ports below the range of outgoing connections, so that no client of a run before can sit on one."""

    def __init__(self):
        self.next = FIRST_PORT + os.getpid() % 97 * 100

    def take(self, *addresses):
        while True:
            self.next += 1
            try:
                for address in addresses or ("127.0.0.1",):
                    with socket.socket() as probe:
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        probe.bind((address, self.next))
                return self.next
            except OSError:
                continue


def raise_file_limit():
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))


def openssl(directory, line, **options):
    subprocess.run(["openssl", *line.split()], cwd=directory, check=True, capture_output=True, **options)


def certificates(directory, hosts):
    """A CA, a certificate for each host name with its addresses, and one for clients: P-256."""
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    openssl(directory, f"req -x509 {key} -days 2 -subj /CN=ca -keyout ca.key -out ca.crt")
    for name, addresses in {**hosts, "client": []}.items():
        openssl(directory, f"req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr")
        names = ",".join([f"DNS:{name}", f"DNS:{SERVICE}", *(f"IP:{address}" for address in addresses)])
        (directory / f"{name}.ext").write_text(f"subjectAltName={names}")
        openssl(directory, f"x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.crt")
        (directory / f"{name}.pem").write_text((directory / f"{name}.crt").read_text() + (directory / f"{name}.key").read_text())
    (directory / "ticket.key").write_bytes(os.urandom(48))
    os.chmod(directory / "ticket.key", 0o600)


def from_template(name, directory, values):
    text = (HERE / name).read_text()
    for word, value in {"DIR": directory, "FILES": FILES, "CONNECTIONS": CONNECTIONS, "CONNECTIONS2": FILES - 100, **values}.items():
        text = text.replace(f"@{word}@", str(value))
    file = directory / name
    file.write_text(text)
    return file


class Balancer:
    """A balancer that runs: its process, the port that passes TLS through and the one that ends it."""

    def __init__(self, name, command, port, tls_port):
        self.name, self.command, self.port, self.tls_port = name, [str(word) for word in command], port, tls_port
        self.process = subprocess.Popen(self.command, preexec_fn=raise_file_limit)
        self.pid = self.process.pid

    def wait_until(self, answers, seconds=15):
        deadline = time.monotonic() + seconds
        while not answers(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self.name} does not answer; exit status {self.process.poll()}")
            time.sleep(0.05)

    def stop(self):
        children = descendants(self.pid)
        self.process.send_signal(signal.SIGKILL if self.name.startswith("haproxy") else signal.SIGTERM)
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for child in children:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass


def descendants(pid):
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def listens(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def wanted_peers():
    """Names and programs of what stands beside evermq-lb: PEERS=nginx,haproxy; HAPROXY_NEW is another HAProxy's path."""
    names = os.environ.get("PEERS", "nginx,haproxy,haproxy-new").split(",")
    programs = {"nginx": shutil.which("nginx"), "haproxy": shutil.which("haproxy"), "haproxy-new": os.environ.get("HAPROXY_NEW")}
    missing = [name for name in names if name and not programs[name]]
    if missing:
        print("left out:", ", ".join(missing), "(haproxy-new needs HAPROXY_NEW=/path/to/haproxy)")
    return {name: programs[name] for name in names if name and programs[name]}


def versions(binaries, programs):
    def first_line(*command):
        done = subprocess.run(command, capture_output=True, text=True)
        return (done.stdout or done.stderr).splitlines()[0].strip()

    found = {"evermq-lb": first_line(str(binaries / "evermq-lb"), "--version")}
    for name, path in programs.items():
        found[name] = first_line(path, "-v")
    return found


def evermq_file(directory, ports, lb="", broker="", name="evermq.toml"):
    """A cluster with one lb host and two brokers on loopback."""
    file = directory / name
    file.write_text(f"""
[cluster]
name = "bench"
run_dir = "{directory}/run"
log_level = "{os.environ.get('EVERMQ_BENCH_LOG', 'error')}"
[lb]
listen = "127.0.0.1:{ports['lb']}"
workers = 2
max_connections = {CONNECTIONS}
access_log = "off"
{lb}
[broker]
listen = "0.0.0.0:{ports['broker']}"
listen_proxy = "0.0.0.0:{ports['plain']}"
peer_port = {ports['peer']}
{broker}
[tls]
ca = "ca.crt"
cert = "{{host}}.crt"
key = "{{host}}.key"
[[hosts]]
name = "lb1"
address = "127.0.0.9"
roles = ["lb"]
[[hosts]]
name = "b1"
address = "127.0.0.1"
roles = ["broker"]
[[hosts]]
name = "b2"
address = "127.0.0.2"
roles = ["broker"]
""")
    return file


# The name that clients ask for.
SERVICE = "mqtt.bench"
HOSTS = {"lb1": ["127.0.0.9", "127.0.0.1"], "b1": ["127.0.0.1"], "b2": ["127.0.0.2"]}
# Nobody but the backends bounds the load here: what is measured is the relay.
UNBOUNDED = """
max_handshake_rate_per_broker = 0
max_handshakes = 20000
max_handshakes_per_broker = 20000
ticket_key = "ticket.key"
"""
ALWAYS_UP = "".join(f'[[lb.backends]]\nname = "{name}"\nprobe = "none"\n' for name in ("b1", "b2"))


def start(name, program, directory, ports, backend, plain, upgradable=False):
    """Starts a balancer before the backends at ports `backend` (TLS) and `plain` of 127.0.0.1 and 127.0.0.2; `upgradable`: HAProxy with its master."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=directory))
    for file in directory.parent.glob("*.*"):
        if file.suffix in (".crt", ".key", ".pem"):
            shutil.copy(file, directory)
    port, tls_port = ports.take(), ports.take()
    values = {"PORT": port, "TLS_PORT": tls_port, "BACKEND": backend}
    if name == "evermq-lb":
        tls = f'[[lb.listeners]]\nname = "terminated"\nlisten = "127.0.0.1:{tls_port}"\nmode = "terminate"\n'
        file = evermq_file(
            directory,
            {"lb": port, "broker": backend, "plain": plain, "peer": ports.take()},
            lb=UNBOUNDED + f"peer_port = {ports.take('127.0.0.9')}\n" + tls + ALWAYS_UP,
        )
        command = [program, "--config", file, "--host", "lb1"]
    elif name == "nginx":
        command = [program, "-c", from_template("nginx.conf", directory, values)]
    else:
        master = ["-W"] if upgradable else []
        command = [program, "-q", "-db", *master, "-f", from_template("haproxy.cfg", directory, values)]
    balancer = Balancer(name, command, port, tls_port)
    balancer.directory = directory
    balancer.wait_until(listens)
    return balancer


def bench(binaries, *words, **options):
    """One run of the load generator: what it printed."""
    done = subprocess.run([str(binaries / "lb-bench"), *map(str, words)], capture_output=True, text=True, timeout=180, **options)
    if done.returncode:
        raise RuntimeError(f"lb-bench {' '.join(map(str, words))}: {done.stderr.strip()}")
    return json.loads(done.stdout)
