"""EverMQ on the hosts of a lab, installed from the built package, and clients of it."""

import json
import os
import pathlib
import shutil
import subprocess
import time

from lab import DIRECTORY, NETWORK, run, wait_for

LBS, BROKERS = ["lb1", "lb2"], ["broker1", "broker2"]
# The broker that is added, and removed again.
NEW_BROKER = "broker3"
ROLES = {**{lb: ("evermq-lb", "evermq-vip") for lb in LBS}, **{broker: ("evermq-broker",) for broker in [*BROKERS, NEW_BROKER]}}
UNITS = {"vip": "evermq-vip", "lb": "evermq-lb", "broker": "evermq-broker"}
VIP = f"{NETWORK}.100"
PROGRAMS = pathlib.Path("target/packages/root/usr/bin").resolve()
LOAD = pathlib.Path(os.environ.get("EVERMQ_LOAD", f"target/{os.uname().machine}-unknown-linux-gnu/release/evermq-load")).resolve()

CONFIG = """
[cluster]
name = "hosts"

# A machine that has all four hosts and their clients at work is late now and then; the VIP must not move for that.
[vip]
address = "{vip}"
advert_interval = "100ms"

[tls]
ca = "tls/ca.crt"
cert = "tls/{{host}}.crt"
key = "tls/{{host}}.key"
"""


class Stack:
    """The cluster file, certificates, and what is done with the programs."""

    def __init__(self, lab):
        self.lab = lab
        # The host from which others are deployed, where a drill has wanted one.
        self.operator = None
        self.directory = DIRECTORY / "cluster"
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()
        self.config = CONFIG.format(vip=VIP)
        for host in lab.hosts:
            role = "lb" if host.name in LBS else "broker"
            self.config += f'\n[[hosts]]\nname = "{host.name}"\naddress = "{host.address}"\nroles = ["{role}"]\n'
        file = self.directory / "evermq.toml"
        file.write_text(self.config)
        # Of this host alone, where `evermq status` shows the whole cluster.
        own = "--programs" in run(PROGRAMS / "evermq", "status", "--help")
        self.ask = ["evermq", "status", "--json", *(["--programs"] if own else [])]
        run(PROGRAMS / "evermq", "certs", "init", "--config", file, "--dir", self.directory / "tls", "--client", "client")

    # Installing

    def install(self, package, host):
        """The package, by the host's own dpkg."""
        host.put("/root/evermq.deb", pathlib.Path(package).read_bytes())
        return host.do("sh", "-c", "dpkg --install /root/evermq.deb 2>&1")

    def configure(self, host):
        """The cluster file, and this host's own key."""
        host.put("/etc/evermq/evermq.toml", self.config)
        for name in ("ca.crt", f"{host.name}.crt"):
            host.put(f"/etc/evermq/tls/{name}", (self.directory / "tls" / name).read_bytes(), group="evermq")
        key = (self.directory / "tls" / f"{host.name}.key").read_bytes()
        host.put(f"/etc/evermq/tls/{host.name}.key", key, 0o640, "evermq")

    def start(self, host):
        host.do("systemctl", "enable", "--now", *ROLES[host.name])

    def adopt(self, config, tls):
        """The cluster file and certificates that somebody else has made; `tls` gives the contents of one."""
        self.config = config
        for name in ("ca.crt", "client.crt", "client.key"):
            (self.directory / "tls" / name).write_text(tls(name))

    # How it is

    def processes(self):
        """The main process of each program on each host."""
        return {host.name: {unit: host.main_process(unit) for unit in ROLES[host.name]} for host in self.lab.hosts}

    def status(self, host):
        """What `evermq status` says, and its exit status: 0 where all is well."""
        done = subprocess.run(host.command(*self.ask), capture_output=True, text=True)
        return (json.loads(done.stdout) if done.stdout else {}), done.returncode

    def programs(self, host):
        """What each program of a host says of itself."""
        return {program["program"]: program for program in self.status(host)[0]["programs"]}

    def versions(self, host):
        """What each program of a host says that it is."""
        return {name: program["about"]["version"] for name, program in self.programs(host).items()}

    def clients_of(self, host):
        """Connections to a broker that are not the load balancers' own."""
        state = self.programs(host)["evermq-broker"]["state"]
        return state["connections"] - state["lbs"]

    def is_well(self, host):
        return self.status(host)[1] == 0

    def all_well(self, seconds=60):
        return wait_for("every host to be well", lambda: all(self.is_well(host) for host in self.lab.hosts), seconds)

    def holders(self):
        """The lb hosts that have the VIP on their interface."""
        return [name for name in LBS if VIP in self.lab[name].do("ip", "-4", "-brief", "address", check=False)]

    def holder(self):
        wait_for("one holder of the VIP", lambda: len(self.holders()) == 1)
        return self.lab[self.holders()[0]]

    def standby(self):
        holder = self.holder()
        return next(self.lab[name] for name in LBS if name != holder.name)

    # Clients

    def tls(self):
        tls = self.directory / "tls"
        return ["--cafile", tls / "ca.crt", "--cert", tls / "client.crt", "--key", tls / "client.key"]

    def passes(self):
        """Whether a message that is published through the VIP comes to a subscriber there."""
        command = [LOAD, "flow", "--publish", f"{VIP}:9000", "--subscribe", f"{VIP}:9000", *self.tls(), "--qos", "1", "--messages", "1"]
        done = subprocess.run(self.lab.network.command(*command, "--patience", "1"), capture_output=True, text=True)
        return done.returncode == 0 and json.loads(done.stdout)["received"] == 1

    def probe(self, seconds, address=f"{VIP}:9000", interval=10):
        """Connects anew again and again."""
        return Client(self, "probe", "--connect", address, "--interval", interval, "--duration", int(seconds * 1000))

    def hold(self, clients, seconds, address=f"{VIP}:9000"):
        """Clients that stay connected and send something every second; back when all are connected."""
        return Client(self, "hold", "--connect", address, "--clients", clients, "--ping", 1000, "--attempt", 3000, "--retry", 100,
                      "--duration", int(seconds * 1000), ready=True)

    def flow(self, messages, rate):
        """Numbered messages of QoS 1 through the VIP."""
        return Client(self, "flow", "--publish", f"{VIP}:9000", "--subscribe", f"{VIP}:9000", "--qos", "1", "--publishers", 4,
                      "--subscribers", 2, "--messages", messages, "--rate", rate, "--patience", 5)


class Client:
    """A run of the load generator on the hosts' network."""

    def __init__(self, stack, kind, *arguments, ready=False):
        self.process = stack.lab.network.start(LOAD, kind, *arguments, *stack.tls(), preexec_fn=many_files)
        if ready:
            line = self.process.stderr.readline()
            assert line.strip() == "ready", line
        # Something has been measured before anything happens.
        time.sleep(1.0)

    def result(self):
        output, complaint = self.process.communicate(timeout=600)
        assert self.process.returncode == 0, complaint
        return json.loads(output)


def many_files():
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
