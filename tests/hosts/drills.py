"""What happens to hosts in their lives, and what is asked of EverMQ then. Each drill leaves everything well behind it."""

import pathlib
import re
import time

from lab import wait_for
from stack import BROKERS, LBS, ROLES, UNITS, VIP

# At most, of `systemd-analyze security`.
EXPOSURE = {"evermq-vip": 2.0, "evermq-lb": 1.5, "evermq-broker": 1.5}
# WatchdogSec of the units, and time to be killed and started.
WATCHDOG = {"vip": 10, "lb": 10, "broker": 30}
CLIENTS = 2000


def say(drill, text):
    print(f"{drill:12} {text}", flush=True)


def home(stack, program):
    """A host where that program runs: of those with the VIP, the holder."""
    return stack.lab["broker1"] if program == "broker" else stack.holder()


def install(stack, package):
    """Four bare hosts: package, file, key, start, and a message through the VIP."""
    begin = time.monotonic()
    for host in stack.lab.hosts:
        stack.install(package, host)
        assert not host.works("systemctl", "is-active", *UNITS.values()), "the package starts nothing"
        stack.configure(host)
    installed = time.monotonic() - begin
    for name in BROKERS + LBS:
        stack.start(stack.lab[name])
    wait_for("a message through the VIP", stack.passes)
    say("install", f"four hosts installed one after the other in {installed:.1f} s; first message {time.monotonic() - begin:.1f} s after the start")
    stack.all_well()
    for host in stack.lab.hosts:
        for unit in ROLES[host.name]:
            said = host.do("systemd-analyze", "security", "--no-pager", unit)
            exposure = float(re.search(r"exposure level for \S+: ([0-9.]+)", said)[1])
            assert exposure <= EXPOSURE[unit], f"{unit}: {exposure}"
            user = host.do("ps", "-o", "user:32=", "-p", host.main_process(unit)).strip()
            assert user == unit, f"{unit} runs as {user}"
            if host.name in ("lb1", "broker1"):
                say("install", f"{unit}: exposure {exposure}, user {user}")
    found = stack.lab["broker1"].do("journalctl", "--quiet", "--output=cat", "--unit=evermq-broker", "EVERMQ_PEER=broker2")
    assert "broker2" in found, f"the journal does not find a line by its field: {found}"


def reload(stack, _package):
    """A bad file is refused, with its line; a good one is in force when `systemctl reload` returns."""
    for program, unit in UNITS.items():
        host = home(stack, program)
        process = host.main_process(unit)
        host.put("/etc/evermq/evermq.toml", stack.config.replace('name = "hosts"', 'name = "hosts"\nno_such_key = 1'))
        assert not host.works("systemctl", "reload", unit), f"{unit}: a bad file is taken"
        assert "no_such_key" in host.journal(unit), f"{unit}: {host.journal(unit)}"
        host.put("/etc/evermq/evermq.toml", stack.config.replace('name = "hosts"', 'name = "hosts"\nlog_level = "debug"'))
        host.do("systemctl", "reload", unit)
        host.put("/etc/evermq/evermq.toml", stack.config)
        host.do("systemctl", "reload", unit)
        assert host.main_process(unit) == process, f"{unit} was restarted"
    stack.all_well()
    say("reload", "a bad file fails with its line in the journal, of all three programs; a good one does not")


def restarted(host, unit, before, seconds):
    return wait_for(f"another {unit} on {host.name}", lambda: host.main_process(unit) not in (0, before), seconds)


def kill(stack, _package):
    """kill -9: nobody is refused by the host itself, as systemd has the listening sockets."""
    for program, unit in UNITS.items():
        host = home(stack, program)
        port = {"vip": 9000, "lb": 9000, "broker": 8883}[program]
        probe, through = stack.probe(6, f"{host.address}:{port}"), stack.probe(6)
        process = host.main_process(unit)
        host.do("kill", "-9", process)
        took = restarted(host, unit, process, 10)
        own, vip = probe.result(), through.result()
        say("kill -9", f"{unit}: another process after {took:.2f} s; refused by the host itself: {own['refused']} of {own['attempts']}; VIP: {figures(vip)}")
        assert own["refused"] == 0, own
        stack.all_well()


def hang(stack, _package):
    """SIGSTOP: the watchdog of systemd has it killed and started again."""
    for program, unit in UNITS.items():
        host = home(stack, program)
        through = stack.probe(WATCHDOG[program] + 8)
        process = host.main_process(unit)
        host.do("kill", "-STOP", process)
        took = restarted(host, unit, process, WATCHDOG[program] + 5)
        assert took > 1, "that was not the watchdog"
        assert "watchdog" in host.journal(unit, 50).lower(), host.journal(unit, 50)
        stack.all_well()
        say("hang", f"{unit}: another process after {took:.1f} s; VIP: {figures(through.result())}")


def restart(stack, _package):
    """`systemctl restart` of the load balancer that has everybody: its connections wait for the next process."""
    host = stack.holder()
    process = host.main_process("evermq-lb")
    hold, flow, probe = stack.hold(CLIENTS, 15), stack.flow(2000, 250), stack.probe(10)
    begin = time.monotonic()
    host.do("systemctl", "restart", "evermq-lb")
    took = time.monotonic() - begin
    held, flowed, probed = hold.result(), flow.result(), probe.result()
    say("restart", f"evermq-lb in {took:.2f} s under {held['clients']} clients: dropped {len(held['outages'])}, none without service for longer than "
        f"{held['longest_unserved_ms']:.0f} ms; connects: {figures(probed)}; messages: {flowed['received']} of {flowed['expected']}, again {flowed['repeated']}")
    assert host.main_process("evermq-lb") not in (0, process), "evermq-lb was not restarted"
    assert not held["outages"] and not probed["failed"], (held["outages"][:3], probed, host.journal("evermq-lb", 50))
    assert flowed["received"] - flowed["repeated"] == flowed["expected"], flowed
    assert stack.holder().name == host.name, "the VIP has moved"
    stack.all_well()


def reboot(stack, _package):
    for host in stack.lab.hosts:
        probe = stack.probe(20)
        took = host.reboot()
        stack.all_well()
        wait_for("a message through the VIP", stack.passes)
        say("reboot", f"{host.name}: booted in {took:.1f} s, all well without a hand; VIP: {figures(probe.result())}")


def plug(stack, _package):
    for host in stack.lab.hosts:
        probe = stack.probe(8)
        role = "holder of the VIP" if host.name in stack.holders() else "standby" if host.name in LBS else "broker"
        host.pull_plug()
        result = probe.result()
        wait_for("a message through the VIP", stack.passes)
        host.on()
        stack.all_well()
        say("plug", f"{host.name} ({role}): VIP: {figures(result)}; on again: all well without a hand")


def upgrade(stack, package):
    """A package of a higher version on every host, one after the other, under clients with traffic."""
    next_package = sorted(pathlib.Path(package).parent.glob("evermq_*+next*.deb"))[-1]
    hold, flow, probe = stack.hold(CLIENTS, 45), stack.flow(8000, 250), stack.probe(40)
    before = stack.processes()
    standby = stack.standby()
    begin = time.monotonic()
    said = {host.name: stack.install(next_package, host) for host in stack.lab.hosts}
    took = time.monotonic() - begin
    after = stack.processes()
    for name in LBS:
        assert after[name]["evermq-lb"] not in (0, before[name]["evermq-lb"]), f"evermq-lb of {name} was not upgraded: {said[name]}"
    assert after[standby.name]["evermq-vip"] != before[standby.name]["evermq-vip"], f"the standby's evermq-vip was not restarted: {said[standby.name]}"
    holder = stack.holder().name
    assert holder != standby.name and after[holder]["evermq-vip"] == before[holder]["evermq-vip"], "the VIP has moved"
    for name in BROKERS:
        assert after[name] == before[name], f"evermq-broker of {name} was restarted"
    held, flowed, probed = hold.result(), flow.result(), probe.result()
    for name in LBS:
        say("upgrade", f"{name}: " + "; ".join(line for line in said[name].splitlines() if line.startswith("evermq-")))
    say("upgrade", f"four hosts in {took:.1f} s under {held['clients']} clients: dropped {len(held['outages'])}, connects: {figures(probed)}; "
        f"messages: {flowed['received']} of {flowed['expected']}, again {flowed['repeated']}")
    assert not held["outages"] and not probed["failed"], (held["outages"][:3], probed)
    assert flowed["received"] - flowed["repeated"] == flowed["expected"], flowed
    # What an upgraded lb listens on is kept, too.
    host = stack.holder()
    process = host.main_process("evermq-lb")
    probe = stack.probe(4, f"{host.address}:9000")
    host.do("kill", "-9", process)
    restarted(host, "evermq-lb", process, 10)
    assert probe.result()["refused"] == 0, "refused after an upgrade"
    stack.all_well()


def remove(stack, package):
    """Removal leaves file, keys and messages; purge does not."""
    host = stack.lab["broker2"]
    host.do("dpkg", "--remove", "evermq")
    assert not host.works("test", "-e", "/usr/bin/evermq-broker")
    for path in ("/etc/evermq/evermq.toml", "/etc/evermq/tls/broker2.key", "/var/lib/evermq"):
        assert host.works("test", "-e", path), f"{path} is gone"
    wait_for("a message through the VIP", stack.passes)
    stack.install(package, host)
    host.do("systemctl", "start", "evermq-broker")
    stack.all_well()
    host.do("dpkg", "--purge", "evermq")
    for path in ("/etc/evermq", "/var/lib/evermq", "/run/evermq", "/usr/lib/evermq"):
        assert not host.works("test", "-e", path), f"{path} is left"
    stack.install(package, host)
    stack.configure(host)
    stack.start(host)
    stack.all_well()
    say("remove", "leaves the cluster file, keys and messages; purge removes them; installed again: all well")


def figures(probe):
    return (f"{probe['succeeded']} of {probe['attempts']}, refused {probe['refused']}, failed otherwise {probe['failed'] - probe['refused']}, "
            f"longest gap {probe['longest_gap_ms']:.0f} ms, worst connect {probe['worst_connect_ms']:.0f} ms")


DRILLS = [install, reload, restart, kill, hang, reboot, plug, upgrade, remove]
