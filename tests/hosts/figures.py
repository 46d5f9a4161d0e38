"""What faults cost 2,000 connected clients, of EverMQ and of Debian's HAProxy and keepalived on the same hosts.

Each fault meets the holder of the VIP (of brokers: broker1). *dropped*: of the 2,000, how many were disconnected. *back*: until the last of
them was connected and subscribed again, from when it was closed. New connections come every 10 ms all the time.
"""

import time

from drills import CLIENTS, say
from lab import wait_for
from stack import BROKERS, LBS, VIP

HAPROXY = """
global
    maxconn 20000
defaults
    mode tcp
    timeout connect 2s
    timeout client 1h
    timeout server 1h
frontend mqtt
    bind :9000
    default_backend brokers
backend brokers
    balance leastconn
"""

# What its documentation shows: an advertisement each second, a check of the load balancer each second.
KEEPALIVED = """
global_defs {{
    script_user root
    enable_script_security
}}
vrrp_script haproxy {{
    script "/usr/bin/pgrep -x haproxy"
    interval 1
    fall 2
    rise 2
}}
vrrp_instance mqtt {{
    state BACKUP
    interface eth0
    virtual_router_id 51
    priority {priority}
    advert_int 1
    nopreempt
    virtual_ipaddress {{
        {vip}/32
    }}
    track_script {{
        haproxy
    }}
}}
"""
# Until a hung program has been replaced: WatchdogSec, and some.
HANG = {"evermq-vip": 16, "evermq-lb": 16, "evermq-broker": 38}


def under_load(stack, what, fault, seconds=10):
    """One fault; prints its row."""
    hold, probe = stack.hold(CLIENTS, seconds + 4), stack.probe(seconds)
    fault()
    held, probed = hold.result(), probe.result()
    back = [outage["back_ms"] - outage["closed_ms"] for outage in held["outages"] if outage["back_ms"]]
    lost = sum(outage["back_ms"] is None for outage in held["outages"])
    dropped = len({outage["client"] for outage in held["outages"]})
    say("figures", f"| {what} | {dropped} | {max(back, default=0):.0f} ms{f', {lost} not at all' if lost else ''} | {probed['refused']} | "
        f"{probed['failed'] - probed['refused']} | {probed['longest_gap_ms']:.0f} ms | {probed['worst_connect_ms']:.0f} ms |")


def figures(stack, package):
    say("figures", "| fault | dropped | back | refused | failed otherwise | longest gap | worst connect |")
    say("figures", "|---|---|---|---|---|---|---|")
    for unit in ("evermq-lb", "evermq-vip", "evermq-broker"):
        def host():
            return stack.lab["broker1"] if unit == "evermq-broker" else stack.holder()

        def signal(name):
            at = host()
            at.do("kill", name, at.main_process(unit))

        under_load(stack, f"{unit}: systemctl restart", lambda: host().do("systemctl", "restart", unit), 14)
        stack.all_well()
        under_load(stack, f"{unit}: kill -9", lambda: signal("-9"))
        stack.all_well()
        under_load(stack, f"{unit}: hang (SIGSTOP)", lambda: signal("-STOP"), HANG[unit])
        stack.all_well()
    under_load(stack, "evermq: package upgrade of the VIP's holder", lambda: stack.install(package, stack.holder()))
    stack.all_well()
    peers(stack)


def peers(stack):
    """HAProxy and keepalived before the same brokers."""
    for number, name in enumerate(LBS):
        host = stack.lab[name]
        host.do("systemctl", "stop", "evermq-vip", "evermq-lb")
        servers = "".join(f"    server {broker} {stack.lab[broker].address}:8883 check inter 1s\n" for broker in BROKERS)
        host.put("/etc/haproxy/haproxy.cfg", HAPROXY + servers)
        host.put("/etc/keepalived/keepalived.conf", KEEPALIVED.format(priority=110 - 10 * number, vip=VIP))
        host.do("systemctl", "start", "haproxy", "keepalived")
    wait_for("a message through keepalived's VIP", stack.passes, 30)

    def main(unit):
        return stack.holder().do("systemctl", "show", "--property=MainPID", "--value", unit).strip()

    def worker():
        return stack.holder().do("pgrep", "-x", "-n", "haproxy").strip()

    def settle():
        for name in LBS:
            # A stopped process has to be let go by hand: nothing else does it.
            stack.lab[name].do("pkill", "-CONT", "haproxy", check=False)
            stack.lab[name].do("pkill", "-CONT", "keepalived", check=False)
        wait_for("one holder", lambda: len(stack.holders()) == 1, 30)
        wait_for("a message", stack.passes, 30)
        time.sleep(4)

    faults = {
        "haproxy: systemctl restart": lambda: stack.holder().do("systemctl", "restart", "haproxy"),
        "haproxy: systemctl reload": lambda: stack.holder().do("systemctl", "reload", "haproxy"),
        "haproxy: kill -9 of its worker": lambda: stack.holder().do("kill", "-9", worker()),
        "haproxy: hang (SIGSTOP of its worker)": lambda: stack.holder().do("kill", "-STOP", worker()),
        "keepalived: systemctl restart": lambda: stack.holder().do("systemctl", "restart", "keepalived"),
        "keepalived: kill -9": lambda: stack.holder().do("kill", "-9", main("keepalived")),
        "keepalived: hang (SIGSTOP of all of it)": lambda: stack.holder().do("pkill", "-STOP", "keepalived"),
    }
    for what, fault in faults.items():
        under_load(stack, what, fault, 16)
        settle()
    for name in LBS:
        stack.lab[name].do("systemctl", "stop", "keepalived", "haproxy")
        stack.lab[name].do("systemctl", "start", "evermq-lb", "evermq-vip")
    stack.all_well()
