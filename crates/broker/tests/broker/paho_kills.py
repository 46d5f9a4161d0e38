"""Clients of a broker that is killed again and again: paho_kills.py VERSION PORT [PORT]. The second port is that of another
broker of the cluster, where the subscribers are. Says "ready", publishes until a line comes
on standard input, then checks that what was acknowledged has arrived. Prints one "ok NAME" for each check."""

import collections
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

VERSION, PORT = sys.argv[1:3]
THERE = sys.argv[-1]
V5 = VERSION == "5"
PATIENCE = 60
OUTSTANDING = 100


class Paho(mqtt.Client):
    """paho-mqtt forgets with its second attempt to connect that it has sent PUBREL, and would send the PUBLISH again, which
    `[MQTT-4.3.3-6]` forbids."""

    def _messages_reconnect_reset_out(self):
        released = mqtt.mqtt_ms_wait_for_pubcomp, mqtt.mqtt_ms_resend_pubrel
        before = [message for message in self._out_messages.values() if message.state in released]
        super()._messages_reconnect_reset_out()
        for message in before:
            message.state = mqtt.mqtt_ms_resend_pubrel


class Client:
    """A client whose session outlives its connections and the broker; it connects again by itself."""

    def __init__(self, client_id, topic=None):
        options = {} if V5 else {"clean_session": False}
        protocol = mqtt.MQTTv5 if V5 else mqtt.MQTTv311
        self.paho = Paho(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=protocol, **options)
        self.paho.reconnect_delay_set(0.02, 0.05)
        self.got, self.acknowledged, self.forgotten = collections.Counter(), set(), 0
        self.first, self.topic, self.ready = True, topic, threading.Event()
        self.paho.on_connect = self.on_connect
        self.paho.on_message = lambda client, data, message: self.got.update([message.payload])
        self.paho.on_publish = lambda client, data, mid, reason, properties: self.acknowledged.add(mid)
        self.paho.on_subscribe = lambda client, data, mid, reasons, properties: self.ready.set()
        more = {}
        if V5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 1000
            more = {"clean_start": False, "properties": properties}
        self.paho.connect("127.0.0.1", int(THERE if topic else PORT), keepalive=20, **more)
        self.paho.loop_start()
        assert self.ready.wait(PATIENCE)

    def on_connect(self, client, data, flags, reason, properties):
        assert not reason.is_failure, reason
        if not self.first:
            self.forgotten += not flags.session_present
        elif self.topic:
            client.subscribe(self.topic, 2)
        else:
            self.ready.set()
        self.first = False

    def close(self):
        self.paho.disconnect()
        self.paho.loop_stop()


def wait(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


away = Client("away", "k/#")
away.close()
online = Client("online", "k/#")
publisher = Client("publisher")
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

away.first = False
if V5:
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 1000
    away.paho.connect("127.0.0.1", int(THERE), keepalive=20, clean_start=False, properties=properties)
else:
    away.paho.connect("127.0.0.1", int(THERE), keepalive=20)
away.paho.loop_start()
wanted = set(sent.values())
for name, client in [("online", online), ("away", away)]:
    missing = lambda: [payload for payload in wanted if not client.got[payload]]
    try:
        wait("messages", lambda: not missing())
    except AssertionError:
        sys.exit(f"{name}: {len(missing())} acknowledged messages were lost: {sorted(missing())[:10]}")
    twice = [payload for payload, count in client.got.items() if payload.startswith(b"2:") and count > 1]
    assert not twice, f"{name}: of QoS 2 and twice: {twice[:10]}"
    assert client.forgotten == 0, f"{name}: its session was forgotten"
    print(f"ok {name}", flush=True)
assert publisher.forgotten == 0, "the publisher's session was forgotten"
