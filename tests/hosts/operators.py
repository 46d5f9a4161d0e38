"""The operator: a host of its own with the built package and ssh, from which the others are deployed."""

import pathlib
import subprocess
import time

from stack import LBS, VIP

DIRECTORY = "/root/plant"
PACKAGES, NEXT_PACKAGES = "/root/packages", "/root/next"
# A user of the hosts who is not root, and may become root.
USER = "deployer"


class Operator:
    """Commands of `evermq` and ssh on the operator's host, and what the other hosts have to know of it."""

    def __init__(self, stack, package, next_package):
        self.stack = stack
        self.host = stack.lab.boot("operator")
        self.send(package, PACKAGES)
        self.send(next_package, NEXT_PACKAGES)
        self.host.do("dpkg", "--install", f"{PACKAGES}/{pathlib.Path(package).name}")
        self.host.do("mkdir", "-p", DIRECTORY)
        self.host.do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")

    def send(self, package, directory):
        self.host.put(f"{directory}/{pathlib.Path(package).name}", pathlib.Path(package).read_bytes())

    # What stands on the hosts before anything is deployed

    def is_let_in(self, hosts, config=""):
        """Their keys are known to the operator, and the operator's to root there."""
        known = "".join(f"{host.address},{host.name} {self.public_key(host)}" for host in hosts)
        self.host.put("/root/.ssh/known_hosts", known)
        self.host.put("/root/.ssh/config", config)
        for host in hosts:
            host.put("/root/.ssh/authorized_keys", self.key())

    def is_let_in_as_user(self, host, only_from=None):
        """The same for a user who may become root there; only from one address where that is said."""
        host.do("useradd", "--create-home", "--shell", "/bin/sh", USER)
        restriction = f'from="{only_from}" ' if only_from else ""
        host.put(f"/home/{USER}/.ssh/authorized_keys", restriction + self.key())
        host.put(f"/etc/sudoers.d/{USER}", f"{USER} ALL=(ALL) NOPASSWD: ALL\n", 0o440)
        host.do("rm", "-f", "/root/.ssh/authorized_keys")

    def key(self):
        return self.host.do("cat", "/root/.ssh/id_ed25519.pub")

    @staticmethod
    def public_key(host):
        return " ".join(host.do("cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()[:2]) + "\n"

    # Commands

    def evermq(self, words):
        """Runs `evermq` beside the cluster file; gives what it printed, and how long it took."""
        begin = time.monotonic()
        done = self.run(words)
        assert done.returncode == 0, f"evermq {words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout, time.monotonic() - begin

    def fails(self, words, status):
        """The same for a command that has to fail, with that exit status; gives all that it said."""
        done = self.run(words)
        assert done.returncode == status, f"evermq {words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def run(self, words):
        script = f"cd {DIRECTORY} && exec evermq {words}"
        return subprocess.run(self.host.command("sh", "-c", script), capture_output=True, text=True)

    def init(self):
        """The cluster file and its certificates."""
        named = " ".join(f"--{'lb' if host.name in LBS else 'broker'} {host.name}={host.address}" for host in self.stack.lab.hosts)
        self.host.do("rm", "-rf", f"{DIRECTORY}/evermq.toml", f"{DIRECTORY}/tls")
        self.evermq(f"init --name hosts --vip {VIP} {named}")
        self.evermq("certs init --config evermq.toml --dir tls --client client")

    def read(self, path):
        return self.host.do("cat", f"{DIRECTORY}/{path}")

    def write(self, path, content):
        self.host.put(f"{DIRECTORY}/{path}", content)

    def edit(self, before, after):
        """One edit of the cluster file."""
        config = self.read("evermq.toml")
        assert config.count(before) == 1, f"{before!r} is not there once:\n{config}"
        self.write("evermq.toml", config.replace(before, after))

    def reaches(self, *ssh):
        """Whether ssh gets in with these words."""
        return self.host.works("ssh", "-o", "BatchMode=yes", *ssh, "true")
