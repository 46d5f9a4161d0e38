"""The other packages: the .rpm by the real rpm, the archive by tar and `evermq install`."""

import os
import pathlib

from deploying import next_of
from drills import say
from lab import wait_for
from stack import BROKERS, ROLES


def of_kind(package, pattern):
    """The package of the same version in another format."""
    found = [path for path in pathlib.Path(package).parent.glob(pattern) if "+next" not in path.name]
    assert len(found) == 1, f"{pattern}: {found}"
    return found[0]


def without_evermq(host):
    """A host that has been purged, and served before."""
    host.do("dpkg", "--purge", "evermq")
    for user in ("evermq-vip", "evermq-lb", "evermq-broker", "evermq-admin"):
        host.do("userdel", user)
    host.do("groupdel", "evermq", check=False)


def rpm_of(host):
    """Debian's rpm wants to be asked twice, up to 4.18, and its database knows no systemd."""
    twice = ["--force-debian"] if host.works("rpm", "--force-debian", "--version") else []
    return ["rpm", *twice, "--nodeps"]


def send(host, package):
    path = f"/root/{package.name}"
    host.put(path, package.read_bytes())
    return path


def rpm(stack, package):
    """Installed, upgraded while it serves, removed, installed again: on a broker and on the standby."""
    first = of_kind(package, f"evermq-*.{os.uname().machine}.rpm")
    for host in (stack.lab[BROKERS[1]], stack.standby()):
        without_evermq(host)
        command = rpm_of(host)
        said = host.do("sh", "-c", f"{' '.join(command)} --install {send(host, first)} 2>&1")
        assert "scriptlet failed" not in said, said
        for unit in ROLES[host.name]:
            host.do("id", unit)
            assert not host.works("systemctl", "is-active", unit), "the package starts nothing"
        stack.configure(host)
        stack.start(host)
        stack.all_well()
        before = stack.processes()[host.name]
        said = host.do("sh", "-c", f"{' '.join(command)} --upgrade {send(host, next_of(first))} 2>&1")
        assert "scriptlet failed" not in said, said
        stack.all_well()
        after = stack.processes()[host.name]
        taken_over(host, said, before, after)
        host.do(*command, "--erase", "evermq")
        assert not host.works("test", "-e", "/usr/bin/evermq-broker"), "a program is left"
        for unit in ROLES[host.name]:
            assert not host.works("systemctl", "is-active", unit), f"{unit} still runs"
        for path in kept(host):
            assert host.works("test", "-e", path), f"{path} is gone"
        wait_for("a message through the VIP", stack.passes)
        host.do(*command, "--install", f"/root/{first.name}")
        stack.start(host)
        stack.all_well()
        assert host.do("cat", "/etc/evermq/evermq.toml") == stack.config, "the cluster file is another"
        host.do(*command, "--erase", "evermq")
        stack.install(package, host)
        stack.start(host)
        stack.all_well()
        say("rpm", f"{host.name}: installed, upgraded to +next1, removed by rpm: users, services, file and key as they should be, and a broker's messages")


def kept(host):
    """What a removal leaves."""
    messages = ["/var/lib/evermq"] if host.name in BROKERS else []
    return ["/etc/evermq/evermq.toml", f"/etc/evermq/tls/{host.name}.key", *messages]


def taken_over(host, said, before, after):
    """Of an upgrade: the lb hands over, the standby's vip is restarted, a broker goes on and says so."""
    if "evermq-broker" in before:
        assert after == before, f"evermq-broker was restarted: {said}"
        assert "evermq-broker goes on with the version of before" in said, said
    else:
        for unit, process in before.items():
            assert after[unit] not in (0, process), f"{unit} of {host.name} was not upgraded: {said}"


def archive(stack, package):
    """Without a package manager and without ssh: the archive, and `evermq install`."""
    file = of_kind(package, f"evermq-*-{os.uname().machine}.tar.gz")
    host = stack.lab[BROKERS[1]]
    without_evermq(host)
    host.do("tar", "-xzf", send(host, file), "-C", "/", "--no-same-owner")
    host.do("/usr/lib/evermq/after-install")
    host.put("/root/plant/evermq.toml", stack.config)
    for name in ("ca.crt", f"{host.name}.crt", f"{host.name}.key"):
        host.put(f"/root/plant/tls/{name}", (stack.directory / "tls" / name).read_bytes())
    install = ["evermq", "install", "--config", "/root/plant/evermq.toml", "--tls", "/root/plant/tls"]
    said = host.do(*install)
    wait_for("a message through the VIP", stack.passes)
    stack.all_well()
    assert "start evermq-broker" in said, said
    before = stack.processes()
    assert "nothing to do" in host.do(*install) and stack.processes() == before, "a repeat has done something"
    host.do("systemctl", "disable", "--now", *ROLES[host.name])
    host.do("sh", "-c", f"tar -tzf /root/{file.name} | grep -v '/$' | sed 's#^#/#' | xargs rm")
    host.do("rm", "-rf", "/etc/evermq", "/var/lib/evermq")
    stack.install(package, host)
    stack.configure(host)
    stack.start(host)
    stack.all_well()
    say("archive", f"{host.name}: unpacked, evermq install: serves; a repeat does nothing")


DRILLS = [rpm, archive]
