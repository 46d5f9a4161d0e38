"""evermq-broker and its peers, as programs that the benchmark starts, asks and stops."""

import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

# A client's and a broker's end of each connection are in two programs.
WANTED_FILES = 120_000
FIRST_PORT = 18_000
# Keep alive 600 s: rumqttd takes none without.
CONNECT = bytes([0x10, 16, 0, 4]) + b"MQTT" + bytes([4, 2, 2, 0x58, 0, 4]) + b"look"


def raise_file_limit():
    """As many open files as one may have; root may have more than the limit that it was given."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(WANTED_FILES, hard), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return limit
        except (ValueError, OSError):
            continue
    return hard


FILES = raise_file_limit()


class Ports:
    """Ports below the range of outgoing connections, so that no client of a run before can sit on one."""

    def __init__(self):
        self.next = FIRST_PORT + os.getpid() % 97 * 100

    def take(self):
        while True:
            self.next += 1
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", self.next))
                    return self.next
                except OSError:
                    continue


PORTS = Ports()


def certificates(directory):
    """A CA, a certificate for the brokers on loopback, one for clients: P-256."""

    def openssl(line):
        subprocess.run(["openssl", *line.split()], cwd=directory, check=True, capture_output=True)

    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    openssl(f"req -x509 {key} -days 2 -subj /CN=ca -keyout ca.key -out ca.crt")
    for name in ("broker1", "client"):
        openssl(f"req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr")
        (directory / "ext").write_text("subjectAltName=DNS:broker1,IP:127.0.0.1")
        openssl(f"x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out {name}.crt")


class Broker:
    """One broker in a directory of its own. `command` and `configure` are the peer's."""

    name = None
    # What it can be asked at all.
    tls = True
    persistent = True

    def __init__(self, program, directory, tls_directory, **settings):
        self.program, self.directory, self.tls_directory, self.settings = program, directory, tls_directory, settings
        # Of the user `anna`, where there is to be one; clients without a user name get in all the same.
        self.passwords = directory / "passwords" if settings.get("passwords") else None
        self.port, self.tls_port, self.metrics = PORTS.take(), PORTS.take(), PORTS.take()
        directory.mkdir(parents=True)
        if self.passwords:
            self.make_passwords()
        self.configure()
        self.start()

    def write(self, name, text):
        (self.directory / name).write_text(text)
        return self.directory / name

    def start(self, patience=15):
        """Starts it and returns the seconds until it let a client in."""
        begin = time.monotonic()
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen([str(word) for word in self.command()], cwd=self.directory, stdout=log, stderr=log, preexec_fn=raise_file_limit)
        self.pid = self.process.pid
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() - begin > patience:
                log = (self.directory / "log").read_text(errors="replace")[-300:]
                raise RuntimeError(f"{self.name} does not answer; exit status {self.process.poll()}: {log}")
            time.sleep(0.005)
        return time.monotonic() - begin

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as client:
                client.settimeout(2)
                client.sendall(CONNECT)
                return client.recv(4) == b"\x20\x02\x00\x00"
        except OSError:
            return False

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def close(self):
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def syncs(self):
        """How often it has asked the disk to keep what was written; None if it does not say."""
        return None

    def resident(self):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def disk(self):
        return sum(file.stat().st_size for file in self.directory.rglob("*") if file.is_file())


# For works that let very much wait for one session on purpose.
DEEP = """
max_queued_messages = 2000000
max_queued_bytes = "1GiB"
"""


class EverMq(Broker):
    name = "evermq"

    def configure(self):
        tls = self.tls_directory
        self.write("evermq.toml", f"""
[cluster]
name = "bench"
run_dir = "{self.directory}/run"
log_level = "error"
[broker]
listen = "127.0.0.1:{self.tls_port}"
listen_plain = "127.0.0.1:{self.port}"
metrics = "127.0.0.1:{self.metrics}"
peer_port = {PORTS.take()}
max_connections = {FILES - 500}
{DEEP if self.settings.get("deep") else ""}
[broker.store]
path = "{self.directory}/store"
sync = "{self.settings.get("sync", "always")}"
{f'[broker.auth]{chr(10)}password_file = "{self.passwords}"' if self.passwords else ""}
[tls]
ca = "{tls}/ca.crt"
cert = "{tls}/broker1.crt"
key = "{tls}/broker1.key"
[[hosts]]
name = "broker1"
address = "127.0.0.1"
roles = ["lb", "broker"]
""")

    def command(self):
        return [self.program, "--config", self.directory / "evermq.toml", "--host", "broker1"]

    def make_passwords(self):
        words = [self.program.parent / "evermq", "passwd", self.passwords, "anna", "--batch"]
        subprocess.run(words, input=b"right\n", check=True, stdout=subprocess.DEVNULL)

    def syncs(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=2) as answer:
                for line in answer.read().decode().splitlines():
                    if line.startswith("evermq_broker_store_syncs_total"):
                        return float(line.split()[-1])
        except OSError:
            pass
        return None


class Mosquitto(Broker):
    name = "mosquitto"

    # It reads on while it sends, so much more waits there than is on the way; with its default it drops most of it.
    def configure(self):
        tls = self.tls_directory
        self.write("conf", f"""
user root
log_type error
allow_anonymous true
max_inflight_messages 100
max_queued_messages 2000000
set_tcp_nodelay true
{f"password_file {self.passwords}" if self.passwords else ""}
persistence true
persistence_location {self.directory}/
listener {self.port} 127.0.0.1
listener {self.tls_port} 127.0.0.1
cafile {tls}/ca.crt
certfile {tls}/broker1.crt
keyfile {tls}/broker1.key
require_certificate true
""")

    def command(self):
        return [self.program, "-c", self.directory / "conf"]

    def make_passwords(self):
        subprocess.run(["mosquitto_passwd", "-b", "-c", self.passwords, "anna", "right"], check=True)


class Rumqttd(Broker):
    name = "rumqttd"
    persistent = False

    def configure(self):
        connections = """
    connection_timeout_ms = 60000
    max_payload_size = 1048576
    max_inflight_count = 100
    dynamic_filters = true
"""
        tls = self.tls_directory
        self.write("rumqttd.toml", f"""
id = 0
[router]
id = 0
max_connections = {FILES - 500}
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v4.1]
name = "plain"
listen = "127.0.0.1:{self.port}"
next_connection_delay_ms = 0
    [v4.1.connections]{connections}
[v4.2]
name = "tls"
listen = "127.0.0.1:{self.tls_port}"
next_connection_delay_ms = 0
    [v4.2.tls]
    capath = "{tls}/ca.crt"
    certpath = "{tls}/broker1.crt"
    keypath = "{tls}/broker1.key"
    [v4.2.connections]{connections}
[console]
listen = "127.0.0.1:{PORTS.take()}"
""")

    def command(self):
        return [self.program, "-q", "-c", self.directory / "rumqttd.toml"]


class FlashMq(Broker):
    name = "flashmq"

    def configure(self):
        tls = self.tls_directory
        (self.directory / "state").mkdir()
        self.write("conf", f"""
log_file {self.directory}/log-own
log_level error
storage_dir {self.directory}/state
allow_anonymous true
thread_count {os.cpu_count()}
rlimit_nofile {FILES}
max_qos_msg_pending_per_client 65535
max_qos_bytes_pending_per_client 1073741824
max_packet_size 2097152
retained_messages_delivery_limit 1000000
retained_messages_node_limit 100000000
listen {{
    protocol mqtt
    port {self.port}
    inet_protocol ip4
    inet4_bind_address 127.0.0.1
    tcp_nodelay true
}}
listen {{
    protocol mqtt
    port {self.tls_port}
    inet_protocol ip4
    inet4_bind_address 127.0.0.1
    tcp_nodelay true
    fullchain {tls}/broker1.crt
    privkey {tls}/broker1.key
    client_verification_ca_file {tls}/ca.crt
    allow_anonymous true
}}
""")

    def command(self):
        return [self.program, "--config-file", self.directory / "conf"]


class RMqtt(Broker):
    name = "rmqtt"
    persistent = False

    def configure(self):
        tls = self.tls_directory
        (self.directory / "plugins").mkdir()
        listener = """
max_connections = 100000
allow_anonymous = true
max_inflight = 100
max_mqueue_len = 2000000
mqueue_rate_limit = "100000000,1s"
max_packet_size = "2MB"
nodelay = true
"""

        def keys(kind):
            return "\n".join(f"listener.{kind}.external.{line}" for line in listener.strip().splitlines())

        self.write("rmqtt.toml", f"""
task.exec_workers = 2000
task.exec_queue_max = 300_000
node.id = 1
rpc.server_addr = "127.0.0.1:{PORTS.take()}"
log.to = "console"
log.level = "error"
log.dir = "{self.directory}"
log.file = "rmqtt.log"
plugins.dir = "{self.directory}/plugins/"
plugins.default_startups = []
listener.tcp.external.addr = "127.0.0.1:{self.port}"
{keys("tcp")}
listener.tls.external.addr = "127.0.0.1:{self.tls_port}"
listener.tls.external.cross_certificate = true
listener.tls.external.cert = "{tls}/broker1.crt"
listener.tls.external.key = "{tls}/broker1.key"
listener.tls.external.client_ca_certs = "{tls}/ca.crt"
{keys("tls")}
""")

    def command(self):
        return [self.program, "-f", self.directory / "rmqtt.toml"]


KINDS = {kind.name: kind for kind in (EverMq, Mosquitto, Rumqttd, FlashMq, RMqtt)}


def programs(binaries):
    """What there is of PEERS=mosquitto,rumqttd,flashmq,rmqtt; RUMQTTD, FLASHMQ and RMQTT are paths where the program is not on PATH."""
    wanted = [name for name in os.environ.get("PEERS", "mosquitto,rumqttd,flashmq,rmqtt").split(",") if name]
    found, missing = {"evermq": binaries / "evermq-broker"}, []
    for name in wanted:
        program = os.environ.get(name.upper()) or shutil.which({"rmqtt": "rmqttd"}.get(name, name))
        if program:
            found[name] = program
        else:
            missing.append(name)
    if missing:
        print("left out, because there is no such program:", ", ".join(missing), flush=True)
    return found


def versions(found):
    def first_line(program, *words):
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=5, stdin=subprocess.DEVNULL)
        lines = (done.stdout + done.stderr).strip().splitlines()
        return lines[0].strip() if lines else "?"

    words = {"mosquitto": ["-h"]}
    all = {}
    for name, program in found.items():
        try:
            all[name] = first_line(str(program), *words.get(name, ["--version"]))
        except (OSError, subprocess.TimeoutExpired):
            all[name] = str(program)
    return all


def load(binary, broker, *words, tls=False, seconds=180):
    """One run of broker-bench; what it printed, or why not."""
    command = [binary, words[0], f"127.0.0.1:{broker.tls_port if tls else broker.port}", "--pid", broker.pid, *words[1:]]
    if tls:
        directory = broker.tls_directory
        command += ["--cafile", directory / "ca.crt", "--cert", directory / "client.crt", "--key", directory / "client.key"]
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {seconds} s"}
    if done.returncode != 0:
        return {"error": done.stderr.strip().splitlines()[0] if done.stderr.strip() else f"exit status {done.returncode}"}
    return json.loads(done.stdout)
