"""What EverMQ is compared with on the same hosts: Debian's haproxy and keepalived before the same brokers, and Debian's mosquitto
as the brokers. Debian's packages with their own units."""

import json
import subprocess

from lab import DIRECTORY, wait_for
from stack import BROKERS, LBS, LOAD, VIP

# No client of MQTT is silent for an hour here; HAProxy asks for time-outs. A broker is checked as TCP, as the TLS is not HAProxy's.
HAPROXY = """
global
    log /dev/log local0
    chroot /var/lib/haproxy
    stats socket /run/haproxy/admin.sock mode 660 level admin
    user haproxy
    group haproxy
    maxconn 8000

defaults
    log global
    mode tcp
    option dontlognull
    timeout connect 5s
    timeout client 1h
    timeout server 1h

frontend mqtt
    bind :9000
    default_backend brokers

backend brokers
    balance leastconn
    default-server check inter 1s fall 2 rise 3 on-marked-down shutdown-sessions
{servers}
"""

# Like EverMQ by default: who comes back does not take the address away from a healthy holder.
KEEPALIVED = """
global_defs {{
    router_id {name}
    script_user root
    enable_script_security
    vrrp_version 3
}}

vrrp_script haproxy {{
    script "/usr/bin/pgrep -x haproxy"
    interval 1
    fall 2
    rise 2
}}

vrrp_instance mqtt {{
    state BACKUP
    nopreempt
    interface eth0
    virtual_router_id 51
    priority {priority}
    advert_int {interval}
    virtual_ipaddress {{
        {vip}/24
    }}
    track_script {{
        haproxy
    }}
}}
"""

# Beside what Debian's own file says, which is that it keeps its state on disk.
# More open files than its unit gives it, for half of the clients and then for all.
MOSQUITTO = """
listener 8883
cafile /etc/mosquitto/certs/ca.crt
certfile /etc/mosquitto/certs/host.crt
keyfile /etc/mosquitto/certs/host.key
require_certificate true
use_identity_as_username true
max_queued_messages 10000
"""

PACKAGES = ("haproxy", "keepalived", "mosquitto")


def package(name):
    """The package that the hosts' tree was made with."""
    return sorted((DIRECTORY / "cache").glob(f"{name}_*.deb"))[-1]


def silence(lab):
    """Installing them starts them: nothing runs until it is asked for."""
    for host in lab.hosts:
        host.do("systemctl", "disable", "--now", *PACKAGES)


class Debian:
    """haproxy and keepalived on the lb hosts, evermq-broker behind them."""

    def __init__(self, stack, interval):
        self.stack, self.interval = stack, interval

    def start(self):
        for name in LBS:
            self.stack.lab[name].do("systemctl", "disable", "--now", "evermq-vip", "evermq-lb")
        servers = "\n".join(f"    server {name} {self.stack.lab[name].address}:8883" for name in BROKERS)
        for name, priority in zip(LBS, (150, 100)):
            host = self.stack.lab[name]
            host.put("/etc/haproxy/haproxy.cfg", HAPROXY.format(servers=servers))
            host.put("/etc/keepalived/keepalived.conf", KEEPALIVED.format(name=name, priority=priority, interval=self.interval, vip=VIP))
            host.do("systemctl", "enable", "--now", "haproxy")
            host.do("systemctl", "enable", "--now", "keepalived")
        self.settle()

    def stop(self):
        for name in LBS:
            self.stack.lab[name].do("systemctl", "disable", "--now", "keepalived", "haproxy")
            self.stack.start(self.stack.lab[name])
        self.stack.all_well()

    def settle(self):
        """Everything runs, one host has the address, and it serves."""
        wait_for("haproxy and keepalived", lambda: all(self.stack.lab[name].works("systemctl", "is-active", *PACKAGES[:2]) for name in LBS))
        self.stack.holder()
        wait_for("a client's connection through the VIP", self.serves)

    def mend(self):
        """What stands still goes on, and what nobody has started again is started. HAProxy is started anew: no packet tells it of clients
        that have gone to the other host."""
        for host in self.stack.lab.hosts:
            for unit in PACKAGES:
                if host.works("systemctl", "is-enabled", unit):
                    host.do("systemctl", "kill", "--kill-who=all", "--signal=CONT", unit, check=False)
                    host.do("systemctl", "restart" if unit == "haproxy" else "start", unit)

    def serves(self):
        command = [LOAD, "probe", "--connect", f"{VIP}:9000", *self.stack.tls(), "--interval", "50", "--duration", "1000"]
        done = subprocess.run(self.stack.lab.network.command(*command), capture_output=True, text=True)
        return done.returncode == 0 and json.loads(done.stdout)["failed"] == 0


class Mosquitto(Debian):
    """The same with mosquitto in the place of evermq-broker. There is no bridge: the figures are about connections."""

    def start(self):
        tls = self.stack.directory / "tls"
        for name in BROKERS:
            host = self.stack.lab[name]
            host.do("systemctl", "disable", "--now", "evermq-broker")
            host.put("/etc/mosquitto/conf.d/hosts.conf", MOSQUITTO)
            for source, target in (("ca.crt", "ca.crt"), (f"{name}.crt", "host.crt"), (f"{name}.key", "host.key")):
                host.put(f"/etc/mosquitto/certs/{target}", (tls / source).read_bytes(), 0o640, "mosquitto")
            host.put("/etc/systemd/system/mosquitto.service.d/limit.conf", "[Service]\nLimitNOFILE=16384\n")
            host.do("systemctl", "daemon-reload")
            host.do("systemctl", "enable", "--now", "mosquitto")
        super().start()

    def stop(self):
        for name in BROKERS:
            self.stack.lab[name].do("systemctl", "disable", "--now", "mosquitto")
            self.stack.start(self.stack.lab[name])
        super().stop()
