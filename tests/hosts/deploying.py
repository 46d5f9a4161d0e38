"""`evermq deploy` from an operator's host over real ssh, and what follows it: a broker more, a broker less, another version."""

import pathlib
import re
import time

from drills import CLIENTS, figures, say
from lab import wait_for
from lasting import Lasting
from operators import NEXT_PACKAGES, PACKAGES, USER, Operator
from stack import BROKERS, LBS, NEW_BROKER, ROLES

DEPLOY = f"deploy --config evermq.toml --packages {PACKAGES}"
AS_ROOT = "--user root"
# Of the whole of a first deployment, in seconds.
FIRST_MESSAGE = 30


def operator_of(stack, package):
    """The operator's host, booted when it is wanted first."""
    if stack.operator is None:
        stack.operator = Operator(stack, package, next_of(package))
    return stack.operator


def next_of(package):
    """The same kind of package, of a higher version."""
    path = pathlib.Path(package)
    name, ending = re.match(r"(evermq[_-])[^_-]+([_-].*)", path.name).groups()
    return sorted(path.parent.glob(f"{name}*+next*{ending}"))[-1]


def bare(stack):
    """All hosts of the cluster as they were before anybody installed anything."""
    for host in stack.lab.hosts:
        if host.works("test", "-e", "/usr/bin/evermq"):
            host.renew(stack.lab.everyone())


def on_hosts(stack):
    """What stands on the hosts: files of EverMQ's, and its processes."""
    script = "find /etc/evermq -type f -exec sha256sum {} + | sort"
    return {host.name: host.do("sh", "-c", script) for host in stack.lab.hosts}, stack.processes()


def deploy(stack, package):
    """Four bare hosts and an operator: one command, and a message through the VIP."""
    operator = operator_of(stack, package)
    bare(stack)
    operator.is_let_in(stack.lab.hosts)
    begin = time.monotonic()
    operator.init()
    checked, _ = operator.evermq(f"check --config evermq.toml --hosts {AS_ROOT}")
    prepared = time.monotonic() - begin
    begin = time.monotonic()
    said, took = operator.evermq(f"{DEPLOY} {AS_ROOT}")
    adopt(stack, operator)
    wait_for("a message through the VIP", stack.passes)
    first = time.monotonic() - begin
    assert "came to all 2 brokers" in said, said
    assert first < FIRST_MESSAGE, f"{first} s: {said}"
    stack.all_well()
    size = pathlib.Path(package).stat().st_size / 1e6
    say("deploy", f"init, certs init and check --hosts: {prepared:.1f} s; deploy of four bare hosts: {took:.1f} s with its own message to every broker, "
        f"first message through the VIP {first:.1f} s after its start; {size:.1f} MB to each host")
    repeat_is_no_change(stack, operator)
    wrong_file_changes_nothing(stack, operator)
    right_file_is_reloaded(stack, operator)


def adopt(stack, operator):
    stack.adopt(operator.read("evermq.toml"), lambda name: operator.read(f"tls/{name}"))


def repeat_is_no_change(stack, operator):
    before = on_hosts(stack)
    said, took = operator.evermq(f"{DEPLOY} {AS_ROOT}")
    assert "the hosts are as the file has them: nothing to do" in said, said
    assert on_hosts(stack) == before, "a repeat has changed something"
    say("deploy", f"a repeat: nothing to do, no process replaced, {took:.1f} s with its message")


def wrong_file_changes_nothing(stack, operator):
    """One that is wrong in itself, and one that is wrong for one host alone, which only that host can say."""
    before, good = on_hosts(stack), operator.read("evermq.toml")
    operator.write("evermq.toml", good.replace('name = "hosts"', 'name = "hosts"\nno_such_key = 1'))
    said = operator.fails(f"{DEPLOY} {AS_ROOT}", 2)
    assert "no_such_key" in said, said
    assert on_hosts(stack) == before, "a wrong file has changed something"
    # The file is good everywhere; the certificate of one host is another's.
    operator.write("evermq.toml", good + "# changed\n")
    operator.host.do("sh", "-c", "cd /root/plant && rm -rf wrong && cp -a tls wrong && cp wrong/lb1.crt wrong/lb2.crt && cp wrong/lb1.key wrong/lb2.key")
    said = operator.fails(f"{DEPLOY} --tls wrong {AS_ROOT}", 1)
    assert "lb2: check failed" in said, said
    assert on_hosts(stack) == before, f"what one host refuses has changed something: {said}"
    operator.write("evermq.toml", good)
    stack.all_well()
    say("deploy", "a file that is wrong, and files that are wrong for one host alone: refused with the reason, nothing changed on any host")


def right_file_is_reloaded(stack, operator):
    """The lab's own wish, as in the other drills: the VIP must not move because this machine is late."""
    before = stack.processes()
    operator.edit("[vip]\n", '[vip]\nadvert_interval = "100ms"\n')
    said, took = operator.evermq(f"{DEPLOY} {AS_ROOT}")
    adopt(stack, operator)
    stack.all_well()
    assert stack.processes() == before, f"a changed file has replaced a process: {said}"
    for host in stack.lab.hosts:
        assert host.do("cat", "/etc/evermq/evermq.toml") == stack.config, host.name
    say("deploy", f"a changed file: in force on four hosts in {took:.1f} s, no process replaced")


def deploy_ways(stack, package):
    """Bare hosts again: a user who becomes root by sudo, and brokers that let in nobody but lb1's ssh."""
    operator = operator_of(stack, package)
    for host in stack.lab.hosts:
        host.renew(stack.lab.everyone())
    gate = stack.lab[LBS[0]]
    jump = "".join(f"Host {name}\n  ProxyJump {gate.name}\n" for name in BROKERS)
    operator.is_let_in(stack.lab.hosts, f"Host {gate.name}\n  HostName {gate.address}\n{jump}Host *\n  User {USER}\n")
    for host in stack.lab.hosts:
        operator.is_let_in_as_user(host, gate.address if host.name in BROKERS else None)
    broker = stack.lab[BROKERS[0]]
    assert not operator.reaches(f"{USER}@{broker.address}"), "no jump is needed"
    said = operator.fails(DEPLOY, 1)
    assert "use --user root, or --sudo" in said, said
    said, took = operator.evermq(f"{DEPLOY} --sudo")
    wait_for("a message through the VIP", stack.passes)
    stack.all_well()
    before = on_hosts(stack)
    said, _ = operator.evermq(f"{DEPLOY} --sudo")
    assert "nothing to do" in said and on_hosts(stack) == before, said
    for host in stack.lab.hosts:
        host.put("/root/.ssh/authorized_keys", operator.key())
    operator.is_let_in(stack.lab.hosts)
    say("deploy-ways", f"four bare hosts as a user with sudo, brokers through a jump host: {took:.1f} s; refused without --sudo")


def add_broker(stack, package):
    """One command under clients with traffic, none of whom is disconnected; the new broker gets clients."""
    operator = operator_of(stack, package)
    host = stack.lab.boot(NEW_BROKER)
    operator.is_let_in([*stack.lab.hosts, host])
    before = stack.processes()
    hold, flow, probe = stack.hold(CLIENTS, 40), stack.flow(8000, 250), stack.probe(30)
    said, took = operator.evermq(f"{DEPLOY} --add-host {NEW_BROKER}={host.address} {AS_ROOT}")
    stack.lab.join(host)
    adopt(stack, operator)
    probed, flowed, more = probe.result(), flow.result(), stack.hold(100, 3)
    clients = stack.clients_of(host)
    more.result()
    held = hold.result()
    assert "came to all 3 brokers" in said, said
    say("add-broker", f"{NEW_BROKER} with one command in {took:.1f} s under {held['clients']} clients: disconnected {len(held['outages'])}, connects: {figures(probed)}; "
        f"messages: {flowed['received']} of {flowed['expected']}, again {flowed['repeated']}; then it has {clients} of 100 new clients")
    assert not held["outages"] and not probed["failed"], (held["outages"][:3], probed)
    assert flowed["received"] == flowed["expected"] and not flowed["repeated"], flowed
    assert clients > 0, "the new broker gets no clients"
    after = stack.processes()
    assert {name: after[name] for name in before} == before, f"a process was replaced: {said}"
    stack.all_well()


def remove_broker(stack, package):
    """Drained, out of the file, deployed, stopped: its clients are with the others, and no message is lost."""
    operator = operator_of(stack, package)
    host = stack.lab[NEW_BROKER]
    before = stack.processes()
    hold = stack.hold(CLIENTS, 40)
    lasting, probe = Lasting(stack, [stack.lab[name] for name in BROKERS]), stack.probe(30)
    moved = stack.clients_of(host)
    begin = time.monotonic()
    host.do("evermq", "drain", NEW_BROKER, "--moved", "--wait", "--rate", 100)
    drained = time.monotonic() - begin
    operator.edit(f'\n[[hosts]]\nname = "{NEW_BROKER}"\naddress = "{host.address}"\nroles = ["broker"]\n', "")
    said, took = operator.evermq(f"{DEPLOY} {AS_ROOT}")
    assert "came to all 2 brokers" in said, said
    host.do("systemctl", "disable", "--now", *ROLES[NEW_BROKER])
    stack.lab.leave(host)
    adopt(stack, operator)
    probed, held, flowed = probe.result(), hold.result(), lasting.result()
    say("remove-broker", f"{moved} clients moved in {drained:.1f} s, deployed in {took:.1f} s: {away(held)}; connects: {figures(probed)}; {messages(flowed)}")
    assert moved > 0, "it had no clients"
    assert not any(flowed["missing"].values()), flowed
    assert not probed["failed"] and all(outage["back_ms"] for outage in held["outages"]), (probed, held["outages"][:3])
    after = stack.processes()
    assert after == {name: before[name] for name in after}, f"a process was replaced: {said}"
    stack.all_well()


def deploy_upgrade(stack, package):
    """The next version on all hosts, brokers drained and restarted one by one, under clients with traffic; and back."""
    operator = operator_of(stack, package)
    own, following = version_of(package), version_of(next_of(package))
    for what, words, version in [
        ("deploy", f"deploy --config evermq.toml --packages {NEXT_PACKAGES}", following),
        ("rollback", "rollback --config evermq.toml", own),
    ]:
        before = stack.processes()
        hold = stack.hold(CLIENTS, 60)
        lasting, probe = Lasting(stack, [stack.lab[name] for name in BROKERS]), stack.probe(55)
        said, took = operator.evermq(f"{words} --drain-rate 200 {AS_ROOT}")
        probed, held, flowed = probe.result(), hold.result(), lasting.result()
        stack.all_well()
        after = stack.processes()
        say("deploy-upgrade", f"{what} to {version} in {took:.1f} s under {held['clients']} clients: {away(held)}; connects: {figures(probed)}; {messages(flowed)}")
        assert not any(flowed["missing"].values()), flowed
        assert all(outage["back_ms"] for outage in held["outages"]), "a client was not back"
        for host in stack.lab.hosts:
            for unit in ROLES[host.name]:
                assert after[host.name][unit] not in (0, before[host.name][unit]), f"{unit} of {host.name} goes on: {said}"
                assert stack.versions(host)[unit] == version, f"{unit} of {host.name}: {stack.versions(host)}"
    said, _ = operator.evermq(f"rollback --config evermq.toml {AS_ROOT}")
    assert "nothing to bring back" in said, said


def version_of(package):
    return re.match(r"evermq[_-]([^_-]+)", pathlib.Path(package).name)[1]


def away(held):
    """How often clients were disconnected, and how long the longest was away."""
    times = [outage["back_ms"] - outage["closed_ms"] for outage in held["outages"] if outage["back_ms"]]
    clients = len({outage["client"] for outage in held["outages"]})
    return f"disconnected {len(held['outages'])} times, {clients} clients, back after at most {max(times, default=0):.0f} ms"


def messages(flowed):
    lost = sum(flowed["missing"].values())
    return f"messages lost {lost} of {flowed['acknowledged']} to each broker's subscriber, again {flowed['again']}, {flowed['reconnects']} reconnects of their clients"


DRILLS = [deploy, deploy_ways, add_broker, remove_broker, deploy_upgrade]
