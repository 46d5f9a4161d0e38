"""Clients of every broker of a cluster that suffers, and what they were told: mesh_history.py TLS-DIRECTORY BROKER...

At each broker there are two publishers, two subscribers with lasting sessions and a client that retains, of MQTT 3.1.1 and
5.0. Says "ready"; publishes until a line comes on standard input; then, when everybody is well again, compares:

- every message that was acknowledged is with every subscriber at every broker, of QoS 2 once;
- what a subscriber got of one publisher it got in its order;
- retained messages are the same everywhere, and no older than the one that was acknowledged last;
- no session was forgotten.

Prints one line of JSON with what it saw, and ends with 1 if something is missing.
"""

import collections
import json
import os
import ssl
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.append(os.path.dirname(os.path.abspath(__file__)))
import paho.mqtt.client as mqtt
from lasting import PATIENCE, Lasting

TLS, BROKERS = sys.argv[1], sys.argv[2:]
# Messages of one publisher that are under way at a time, and a rest before each.
WINDOW, REST = 8, 0.01
OWN, SHARED = 5, 5
stopping = threading.Event()


def context():
    made = ssl.create_default_context(cafile=f"{TLS}/ca.crt")
    made.load_cert_chain(f"{TLS}/pub.crt", f"{TLS}/pub.key")
    return made


class Sender(Lasting):
    """Publishes in paho's own thread, one message more for each that is done with: from another thread a message could go out
    on a new connection before those that are sent again, and the order would be the client's."""

    def __init__(self, name, version, broker):
        self.name, self.serial, self.refused = name, 0, 0
        # Serial numbers that are under way by packet identifier.
        self.open = {}
        super().__init__(name, version, (broker, 8883), tls=context(), told=self.told)

    def on_connect(self, *arguments):
        is_first = self.first
        super().on_connect(*arguments)
        if is_first and not self.first:
            for _ in range(WINDOW):
                self.send()

    def send(self):
        qos = 1 + self.serial // 3 % 2
        topic, payload, retain = self.message(self.serial, qos)
        info = self.paho.publish(topic, payload, qos, retain)
        self.open[info.mid] = self.serial
        self.serial += 1

    def told(self, mid, is_refused):
        serial = self.open.pop(mid)
        if is_refused:
            self.refused += 1
        else:
            self.acknowledge(serial)
        if not stopping.is_set():
            time.sleep(REST)
            self.send()


class Publisher(Sender):
    def __init__(self, *arguments):
        self.acknowledged = bytearray()
        super().__init__(*arguments)

    def message(self, serial, qos):
        padding = b"x" * (0, 10, 3000)[serial % 3]
        return f"h/{self.name}", b"%d:%d:%s" % (qos, serial, padding), False

    def acknowledge(self, serial):
        self.acknowledged.extend(bytes(max(0, serial + 1 - len(self.acknowledged))))
        self.acknowledged[serial] = 1


class Retainer(Sender):
    """Topics of its own, and topics that those at other brokers have as well; of these it deletes some."""

    def __init__(self, *arguments):
        self.last = collections.Counter()
        super().__init__(*arguments)

    def place(self, serial):
        return serial // 2 % OWN

    def message(self, serial, qos):
        if serial % 2:
            payload = b"" if serial % 7 == 0 else b"%s:%d" % (self.name.encode(), serial)
            return f"r/shared/{serial // 2 % SHARED}", payload, True
        return f"r/{self.name}/{self.place(serial)}", b"%d" % serial, True

    def acknowledge(self, serial):
        if serial % 2 == 0:
            self.last[self.place(serial)] = max(self.last[self.place(serial)], serial)


class Subscriber(Lasting):
    def __init__(self, name, version, broker):
        self.name, self.got, self.wrong = name, collections.defaultdict(bytearray), []
        # The highest serial number so far, by publisher and QoS.
        self.highest = collections.defaultdict(lambda: -1)
        super().__init__(name, version, (broker, 8883), "h/#", tls=context(), take=self.take)

    def take(self, topic, payload):
        publisher = topic[2:]
        qos, serial, _ = payload.split(b":", 2)
        qos, serial = int(qos), int(serial)
        got = self.got[publisher]
        got.extend(bytes(max(0, serial + 1 - len(got))))
        got[serial] += got[serial] < 255
        if got[serial] > 1:
            if qos == 2:
                self.wrong.append(f"{publisher} {serial} of QoS 2 came {got[serial]} times")
        elif serial < self.highest[publisher, qos]:
            self.wrong.append(f"{publisher} {serial} of QoS {qos} came after {self.highest[publisher, qos]}")
        self.highest[publisher, qos] = max(serial, self.highest[publisher, qos])

    def missing(self, publisher):
        got = self.got[publisher.name]
        return [serial for serial, is_owed in enumerate(publisher.acknowledged) if is_owed and not got[serial : serial + 1].strip(b"\0")]


def until(condition):
    """Waits for what must come; whether it did."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def retained(broker):
    """The retained messages that a new client of a broker is given; nothing if it cannot ask."""
    got, changed = {}, time.monotonic()

    def on_message(client, data, message):
        nonlocal changed
        got[message.topic], changed = message.payload.decode(), time.monotonic()

    reader = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, f"reader-{broker}", protocol=mqtt.MQTTv5)
    reader.tls_set_context(context())
    reader.on_message = on_message
    reader.on_connect = lambda client, *_: client.subscribe("r/#")
    try:
        reader.connect(broker, 8883)
    except OSError:
        return None
    reader.loop_start()
    # The caller asks again if this was too early.
    while time.monotonic() - changed < 0.5:
        time.sleep(0.05)
    reader.disconnect()
    reader.loop_stop()
    return got


def same_everywhere(retainers):
    views = [retained(broker) for broker in BROKERS]
    if views[0] is None or any(view != views[0] for view in views):
        return False
    return all(int(views[0].get(f"r/{one.name}/{place}", -1)) >= serial for one in retainers for place, serial in one.last.items())


def at_each(kind, make):
    return [make(f"{kind}{number}-{version}", version, broker) for number, broker in enumerate(BROKERS) for version in ("311", "5")]


subscribers = at_each("sub", Subscriber)
publishers = at_each("pub", Publisher)
retainers = at_each("ret", Retainer)
senders = publishers + retainers
print("ready", flush=True)
sys.stdin.readline()
stopping.set()

wrong = []
if not until(lambda: not any(sender.open for sender in senders)):
    wrong += [f"{sender.name}: {len(sender.open)} were never acknowledged, such as {list(sender.open.values())[:5]}" for sender in senders if sender.open]
pairs = [(subscriber, publisher) for subscriber in subscribers for publisher in publishers]
if not until(lambda: not any(subscriber.missing(publisher) for subscriber, publisher in pairs)):
    for subscriber, publisher in pairs:
        if missing := subscriber.missing(publisher):
            wrong.append(f"{subscriber.name}: {len(missing)} acknowledged messages of {publisher.name} were lost: {missing[:10]}")
if not until(lambda: same_everywhere(retainers)):
    wrong.append(f"retained messages differ: {[retained(broker) for broker in BROKERS]}, of which {[(one.name, dict(one.last)) for one in retainers]} were acknowledged")
for client in senders + subscribers:
    if client.forgotten:
        wrong.append(f"{client.name}: its session was forgotten")
for subscriber in subscribers:
    wrong += [f"{subscriber.name}: {text}" for text in subscriber.wrong[:10]]
count = sum(sum(publisher.acknowledged) for publisher in publishers)
print(json.dumps({"acknowledged": count, "refused": sum(sender.refused for sender in senders), "wrong": wrong}), flush=True)
os._exit(1 if wrong else 0)
