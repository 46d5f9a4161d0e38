"""Clients that go on when they are sent away, and what is asked of a cluster whose programs are replaced: every acknowledged
message comes to every subscriber whose session is kept.

Subscribers are at one broker each, where their sessions are; publishers come through the VIP. Both are `evermq sub` and
`evermq pub`, which connect again by themselves.
"""

import subprocess
import threading
import time

from lab import wait_for
from stack import PROGRAMS, VIP


class Lasting:
    """From its making on there are messages, until `result` is asked for."""

    def __init__(self, stack, brokers, publishers=3, rate=40):
        self.stack = stack
        self.directory = stack.directory / "lasting"
        self.directory.mkdir(exist_ok=True)
        self.topic = f"lasting/{time.monotonic_ns()}"
        self.interval = 1 / rate
        self.ended = threading.Event()
        self.subscribers = {host.name: self.subscriber(host) for host in brokers}
        self.publishers = [self.publisher(number) for number in range(publishers)]
        self.threads = [threading.Thread(target=self.publish, args=one) for one in enumerate(self.publishers)]
        self.sent = [0] * publishers
        for thread in self.threads:
            thread.start()
        wait_for("the first messages", lambda: all(self.received(name) for name in self.subscribers))

    def command(self, what, address, identity, *more):
        host, _, port = address.partition(":")
        return [PROGRAMS / "evermq", what, "-h", host, "-p", port, "-i", identity, "-c", "-q", "1", "-t", self.topic, *self.stack.tls(), *more]

    def subscriber(self, host):
        command = self.command("sub", f"{host.address}:8883", f"lasting-{host.name}")
        # The session is there before the first message is.
        self.stack.lab.network.run(*command, "-E")
        return self.start(command, host.name, stdin=subprocess.DEVNULL)

    def publisher(self, number):
        return self.start(self.command("pub", f"{VIP}:9000", f"lasting-publisher-{number}", "-l"), f"publisher-{number}", stdin=subprocess.PIPE)

    def start(self, command, name, stdin):
        with self.said(name, "out").open("w") as out, self.said(name, "err").open("w") as err:
            return subprocess.Popen(self.stack.lab.network.command(*command), stdin=stdin, stdout=out, stderr=err)

    def said(self, name, kind):
        return self.directory / f"{name}.{kind}"

    def publish(self, number, process):
        while not self.ended.wait(self.interval):
            process.stdin.write(f"{number}-{self.sent[number]}\n".encode())
            process.stdin.flush()
            self.sent[number] += 1

    def received(self, name):
        return self.said(name, "out").read_text().split()

    def result(self):
        """Messages that were acknowledged, those that a subscriber did not get, and those that came again."""
        self.ended.set()
        for thread in self.threads:
            thread.join()
        for number, publisher in enumerate(self.publishers):
            publisher.stdin.close()
            assert publisher.wait(60) == 0, self.said(f"publisher-{number}", "err").read_text()
        expected = {f"{number}-{message}" for number, sent in enumerate(self.sent) for message in range(sent)}
        self.wait_for_all(expected)
        for subscriber in self.subscribers.values():
            subscriber.terminate()
            subscriber.wait(10)
        missing = {name: len(expected - set(self.received(name))) for name in self.subscribers}
        again = sum(len(lines) - len(set(lines)) for lines in map(self.received, self.subscribers))
        return {"acknowledged": len(expected), "missing": missing, "again": again, "reconnects": self.reconnects()}

    def wait_for_all(self, expected):
        try:
            wait_for("all messages", lambda: all(expected <= set(self.received(name)) for name in self.subscribers), 20)
        except TimeoutError:
            # What is missing is counted.
            pass

    def reconnects(self):
        names = [*self.subscribers, *(f"publisher-{number}" for number in range(len(self.publishers)))]
        return sum(self.said(name, "err").read_text().count("connected again") for name in names)
