"""Hosts with a real systemd on one network: each is a systemd-nspawn container with a disk of its own.

A host can be switched on and off, rebooted, and its plug can be pulled: then nothing leaves it any more, its disk stops with
what was not synced, and all of its processes die. Nothing touches this machine's own interfaces. Needs root.
"""

import fcntl
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import time

SUITE = os.environ.get("EVERMQ_HOSTS_SUITE", "bookworm")
MIRROR = [mirror for mirror in [os.environ.get("EVERMQ_HOSTS_MIRROR")] if mirror]
DIRECTORY = pathlib.Path(os.environ.get("EVERMQ_HOSTS_DIR", "target/hosts")).resolve()
# Of one lab: two on one machine at the same time need a name, a network and a directory each.
NAME = os.environ.get("EVERMQ_HOSTS_NAME", "evermq-hosts")
NETWORK = os.environ.get("EVERMQ_HOSTS_NETWORK", "198.18.80")
BRIDGE = "clients"
PACKAGES = "systemd,systemd-sysv,dbus,iproute2,procps,ca-certificates,openssh-server,sudo,rpm"
NEEDED = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "nsenter": "util-linux",
    "mkfs.ext4": "e2fsprogs",
    "ssh-keygen": "openssh-client",
    "ip": "iproute2",
}
# EXT4_IOC_SHUTDOWN, and its flag that what is in the journal does not go to the disk any more.
EXT4_SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2
BOOT = 60


def check_machine():
    """Says what is missing, if anything is."""
    if os.geteuid() != 0:
        sys.exit("hosts are made of namespaces, loop devices and mounts: run this as root")
    missing = [package for program, package in NEEDED.items() if not shutil.which(program)]
    if missing:
        sys.exit("hosts need these programs: apt-get install " + " ".join(missing))


def run(*command, check=True, **options):
    """Runs a command of this machine; gives what it has printed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def wait_for(what, condition, seconds=30.0):
    """Waits until that is true; gives how long it took."""
    begin = time.monotonic()
    while time.monotonic() < begin + seconds:
        if condition():
            return time.monotonic() - begin
        time.sleep(0.02)
    raise TimeoutError(f"not within {seconds} s: {what}")


def mounted(path):
    return f" {path} " in pathlib.Path("/proc/self/mountinfo").read_text()


def alive(process):
    """Whether that process is there and no zombie."""
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def build_base():
    """The tree that all hosts share, made once for a list of packages: about a minute."""
    base = DIRECTORY / f"base-{SUITE}"
    complete = base / ".complete"
    if complete.exists() and complete.read_text() == PACKAGES:
        return base
    print(f"hosts: building the tree of {SUITE}, once: {base}", flush=True)
    shutil.rmtree(base, ignore_errors=True)
    cache = DIRECTORY / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    run("debootstrap", "--variant=minbase", f"--cache-dir={cache}", f"--include={PACKAGES}", SUITE, base, *MIRROR)
    (base / "etc/machine-id").write_text("")
    run("systemctl", f"--root={base}", "mask", "systemd-firstboot.service", "systemd-networkd-wait-online.service")
    (base / "etc/systemd/journald.conf.d").mkdir(exist_ok=True)
    (base / "etc/systemd/journald.conf.d/hosts.conf").write_text("[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\n")
    # Each host has keys of its own.
    for key in (base / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    complete.write_text(PACKAGES)
    return base


class Network:
    """The bridge that the hosts are on, in a network namespace where clients run."""

    def __init__(self):
        run("ip", "netns", "del", NAME, check=False)
        run("ip", "netns", "add", NAME)
        self.path = f"/run/netns/{NAME}"
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0")
        self.run("ip", "address", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        self.run("ip", "link", "set", BRIDGE, "up")

    def command(self, *command):
        return ["nsenter", f"--net={self.path}", "--", *map(str, command)]

    def run(self, *command, **options):
        return run(*self.command(*command), **options)

    def start(self, *command, **options):
        """A client: a command of this machine on the hosts' network."""
        return subprocess.Popen(self.command(*command), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

    def close(self):
        run("ip", "netns", "del", NAME, check=False)


class Host:
    """One host. Its name is its host name."""

    def __init__(self, network, name, number):
        self.network, self.name = network, name
        self.address = f"{NETWORK}.{10 + number}"
        self.link, self.namespace = f"to-{name}"[:15], f"{NAME}-{name}"
        self.directory = DIRECTORY / name
        self.disk, self.root = self.directory / "disk", self.directory / "root"
        self.supervisor = None
        # PID 1 of the host, as this machine numbers it.
        self.init = None

    # Disk

    def make_disk(self, hosts):
        """An empty disk, and on it what makes this host out of the shared tree."""
        self.unmount()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.disk.mkdir(parents=True)
        self.root.mkdir()
        image = self.directory / "disk.img"
        with image.open("wb") as file:
            file.truncate(2 << 30)
        run("mkfs.ext4", "-q", "-E", "lazy_itable_init=1", image)
        self.mount()
        (self.root / "etc/hostname").write_text(self.name + "\n")
        known = "".join(f"{host.address} {host.name}\n" for host in hosts)
        (self.root / "etc/hosts").write_text("127.0.0.1 localhost\n" + known)
        run("ssh-keygen", "-q", "-A", "-f", self.root)

    def mount(self):
        run("mount", "-o", "loop,noatime", self.directory / "disk.img", self.disk)
        upper, work = self.disk / "upper", self.disk / "work"
        upper.mkdir(exist_ok=True)
        work.mkdir(exist_ok=True)
        options = f"lowerdir={build_base()},upperdir={upper},workdir={work}"
        run("mount", "-t", "overlay", "-o", options, f"host-{self.name}", self.root)

    def unmount(self):
        for path in (self.root, self.disk):
            for _ in range(100):
                if not mounted(path):
                    break
                if subprocess.run(["umount", path], capture_output=True).returncode:
                    time.sleep(0.05)
            if mounted(path):
                run("umount", "-l", path)

    # Power

    def on(self):
        """Boots; gives the seconds until systemd has started everything."""
        begin = time.monotonic()
        if not mounted(self.root):
            self.mount()
        self.plug_in()
        group = self.make_group()
        # Its own cgroup, and of the machine's cgroups only version 2, as current distributions have it; then nspawn.
        script = f"""
            echo $$ > {group}/cgroup.procs
            exec unshare --mount --propagation slave -- sh -c '
                umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 1
                exec systemd-nspawn --quiet --directory={self.root} --machine={self.namespace} --hostname={self.name} --boot --register=no --keep-unit \
                    --network-namespace-path=/run/netns/{self.namespace} --link-journal=no --console=pipe --resolv-conf=off \
                    --timezone=off --notify-ready=yes --kill-signal=SIGRTMIN+4 --capability=CAP_NET_ADMIN,CAP_NET_RAW,CAP_SYS_RESOURCE'
        """
        console = (self.directory / "console.log").open("w")
        self.supervisor = subprocess.Popen(["sh", "-c", script], stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True)
        try:
            wait_for("PID 1", self.find_init)
            wait_for("a booted system", self.is_booted, BOOT)
        except TimeoutError as error:
            raise RuntimeError(f"{self.name}: {error}\n{(self.directory / 'console.log').read_text()}") from error
        return time.monotonic() - begin

    def plug_in(self):
        """A fresh network namespace: a host that boots has no address of before."""
        run("ip", "netns", "del", self.namespace, check=False)
        run("ip", "netns", "add", self.namespace)
        self.network.run("ip", "link", "del", self.link, check=False)
        self.network.run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", f"/run/netns/{self.namespace}")
        self.network.run("ip", "link", "set", self.link, "master", BRIDGE, "up")
        inside = ["ip", "-n", self.namespace]
        run(*inside, "link", "set", "lo", "up")
        # Its network card is the same after each boot: the others know its address.
        run(*inside, "link", "set", "eth0", "address", "02:00:" + ":".join(f"{int(part):02x}" for part in self.address.split(".")))
        run(*inside, "address", "add", f"{self.address}/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")

    def make_group(self):
        top = pathlib.Path("/sys/fs/cgroup/unified")
        if not top.is_dir():
            top = pathlib.Path("/sys/fs/cgroup")
        group = top / self.namespace
        group.mkdir(exist_ok=True)
        return group

    def find_init(self):
        if self.supervisor.poll() is not None:
            raise RuntimeError(f"{self.name} did not start:\n{(self.directory / 'console.log').read_text()}")
        # All of them have become the next one by exec, nspawn at last, whose child is PID 1.
        inside = children(self.supervisor.pid) if comm(self.supervisor.pid) == "systemd-nspawn" else []
        self.init = next((pid for pid in inside if comm(pid) == "systemd"), None)
        return self.init is not None

    def is_booted(self):
        return self.do("systemctl", "is-system-running", check=False).strip() in ("running", "degraded")

    def gone(self):
        return self.supervisor.poll() is not None

    def off(self):
        """A clean shutdown."""
        self.do("systemctl", "poweroff", check=False)
        wait_for(f"{self.name} to power off", self.gone, 120)
        self.unmount()

    def reboot(self):
        self.off()
        return self.on()

    def pull_plug(self):
        """No FIN, no RST, no goodbye; what was not synced is gone."""
        self.network.run("ip", "link", "set", self.link, "down")
        with Directory(self.disk) as disk:
            fcntl.ioctl(disk, EXT4_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        os.kill(self.init, 9)
        wait_for(f"{self.name} to die", self.gone)
        self.unmount()

    def renew(self, hosts):
        """A bare host in its place: an empty disk, and switched on."""
        self.destroy()
        self.make_disk(hosts)
        return self.on()

    def destroy(self):
        if self.supervisor and not self.gone():
            os.kill(self.init, 9)
            wait_for(f"{self.name} to die", self.gone)
        self.unmount()
        run("ip", "netns", "del", self.namespace, check=False)

    # Inside

    def command(self, *command):
        return ["nsenter", "-t", str(self.init), "-m", "-u", "-i", "-n", "-p", "-C", "--", "env", "-i", "HOME=/root", "LANG=C.UTF-8",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", *map(str, command)]

    def do(self, *command, **options):
        """Runs a command in the host; gives what it has printed."""
        return run(*self.command(*command), **options)

    def works(self, *command):
        return subprocess.run(self.command(*command), capture_output=True).returncode == 0

    def put(self, path, content, mode=0o644, group="root"):
        """Writes a file there."""
        file = pathlib.Path(f"/proc/{self.init}/root{path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        file.chmod(mode)
        if group != "root":
            self.do("chgrp", group, path)

    def main_process(self, unit):
        """The unit's main process as the host numbers it; 0 where there is none."""
        return int(self.do("systemctl", "show", "--property=MainPID", "--value", unit).strip() or 0)

    def journal(self, unit, lines=20):
        return self.do("journalctl", "--no-pager", "--output=cat", "-n", lines, "-u", unit)


class Directory:
    """An open directory."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        return self.descriptor

    def __exit__(self, *_):
        os.close(self.descriptor)


def children(pid):
    try:
        return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def comm(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


class Lab:
    """Hosts by name, on one network. As a context: all of it goes at its end."""

    def __init__(self, names):
        check_machine()
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        build_base()
        if not mounted(DIRECTORY):
            run("mount", "--bind", DIRECTORY, DIRECTORY)
        # What is unmounted here has to be unmounted in the other hosts' mount namespaces as well.
        run("mount", "--make-shared", DIRECTORY)
        self.network = Network()
        # Those of the cluster, and those that a drill has added, the operator's.
        self.hosts, self.others = [], []
        for name in names:
            self.hosts.append(self.new_host(name))

    def __enter__(self):
        for host in self.hosts:
            host.make_disk(self.hosts)
        for host in self.hosts:
            took = host.on()
            print(f"hosts: {host.name} ({host.address}) is up in {took:.1f} s", flush=True)
        return self

    def everyone(self):
        return self.hosts + self.others

    def new_host(self, name):
        return Host(self.network, name, len(self.everyone()) + 1)

    def boot(self, name):
        """One more host, bare, which is not of the cluster."""
        host = self.new_host(name)
        self.others.append(host)
        host.make_disk(self.everyone())
        host.on()
        return host

    def join(self, host):
        """It is of the cluster from here on."""
        self.others.remove(host)
        self.hosts.append(host)

    def leave(self, host):
        """It is not any more, and still there."""
        self.hosts.remove(host)
        self.others.append(host)

    def __getitem__(self, name):
        return next(host for host in self.everyone() if host.name == name)

    def __exit__(self, *_):
        for host in self.everyone():
            host.destroy()
        self.network.close()
        run("umount", "-l", DIRECTORY, check=False)
