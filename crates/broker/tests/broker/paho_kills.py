"""Clients of a broker that is killed again and again: paho_kills.py VERSION PORT [PORT]. The second port is that of another
broker of the cluster, where the subscribers are. Says "ready", publishes until a line comes
on standard input, then checks that what was acknowledged has arrived. Prints one "ok NAME" for each check."""

import collections
import os
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../../tests/clients"))
from lasting import PATIENCE, Lasting

VERSION, PORT = sys.argv[1:3]
THERE = sys.argv[-1]
OUTSTANDING = 100


class Subscriber(Lasting):
    def __init__(self, name):
        self.got = collections.Counter()
        super().__init__(name, VERSION, ("127.0.0.1", int(THERE)), "k/#", take=lambda topic, payload: self.got.update([payload]))


class Publisher(Lasting):
    def __init__(self, name):
        self.acknowledged = set()
        super().__init__(name, VERSION, ("127.0.0.1", int(PORT)), told=self.told)

    def told(self, mid, is_refused):
        # A PUBREL that is sent again may find that all is done.
        self.acknowledged.add(mid)


class Mosquitto:
    """mosquitto_sub with a lasting session of MQTT 3.1.1, which connects again by itself. With 5.0 it ends after some time: it
    counts a QoS 2 message that is sent again twice against its receive maximum. One whose PUBREC was lost it hands over twice,
    so only what is missing counts."""

    def __init__(self):
        command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", THERE, "-i", "mosquitto", "-c", "-q", "2", "-t", "k/#", "-V", "311"]
        # It has subscribed when this one ends.
        subprocess.run(command + ["-E"], check=True, timeout=PATIENCE)
        self.got, self.forgotten = collections.Counter(), 0
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.got.update([line.rstrip(b"\n")])

    def close(self):
        self.process.kill()
        self.process.wait()


def wait(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


away = Subscriber("away")
away.close()
subscribers = {"online": Subscriber("online"), "away": away}
if VERSION == "311":
    subscribers["mosquitto"] = Mosquitto()
publisher = Publisher("publisher")
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
print("ready", flush=True)

sent = {}
while not stop.is_set():
    wait("acknowledgements", lambda: len(sent) - len(publisher.acknowledged & sent.keys()) < OUTSTANDING)
    number, qos = len(sent), 1 + len(sent) % 2
    payload = b"%d:%d" % (qos, number)
    info = publisher.paho.publish(f"k/{qos}", payload, qos)
    # Identifiers are used again only after 65,535 messages.
    assert info.mid not in sent
    sent[info.mid] = payload
    if number % 20 == 0:
        time.sleep(0.002)
wait("the last acknowledgements", lambda: sent.keys() <= publisher.acknowledged)
print(f"ok acknowledged {len(sent)}", flush=True)

away.connect()
wanted = set(sent.values())
for name, client in subscribers.items():
    missing = lambda: [payload for payload in wanted if not client.got[payload]]
    try:
        wait("messages", lambda: not missing())
    except AssertionError:
        sys.exit(f"{name}: {len(missing())} acknowledged messages were lost: {sorted(missing())[:10]}")
    twice = [payload for payload, count in client.got.items() if payload.startswith(b"2:") and count > 1]
    assert not twice or name == "mosquitto", f"{name}: of QoS 2 and twice: {twice[:10]}"
    assert client.forgotten == 0, f"{name}: its session was forgotten"
    print(f"ok {name}", flush=True)
if VERSION == "311":
    subscribers["mosquitto"].close()
assert publisher.forgotten == 0, "the publisher's session was forgotten"
