"""Scenarios with paho-mqtt: paho_scenarios.py VERSION PORT CA CERT KEY [TRANSPORT]. Prints one "ok NAME" for each; exit status 1 on a failure."""

import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

VERSION, PORT, CA, CERT, KEY = sys.argv[1:6]
TRANSPORT = sys.argv[6] if len(sys.argv) > 6 else "tcp"
V5 = VERSION == "5"
PATIENCE = 10


class Client:
    """A client with its network thread; what it hears goes into queues."""

    def __init__(self, client_id, clean=True, will=None):
        options = {} if V5 else {"clean_session": clean}
        protocol = mqtt.MQTTv5 if V5 else mqtt.MQTTv311
        self.paho = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=protocol, transport=TRANSPORT, **options)
        self.paho.tls_set(CA, CERT, KEY)
        self.messages, self.connected, self.subscribed = queue.Queue(), queue.Queue(), queue.Queue()
        self.disconnected = queue.Queue()
        self.paho.on_message = lambda client, data, message: self.messages.put(message)
        self.paho.on_connect = lambda client, data, flags, reason, properties: self.connected.put((flags, reason))
        self.paho.on_subscribe = lambda client, data, mid, reasons, properties: self.subscribed.put(reasons)
        self.paho.on_disconnect = lambda client, data, flags, reason, properties: self.disconnected.put(reason)
        if will:
            self.paho.will_set(*will)
        more = {}
        if V5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if clean else 60
            more = {"clean_start": clean, "properties": properties}
        self.paho.connect("localhost", int(PORT), keepalive=20, **more)
        self.paho.loop_start()
        self.flags, reason = self.connected.get(timeout=PATIENCE)
        assert not reason.is_failure, reason

    def subscribe(self, topic, qos=2):
        self.paho.subscribe(topic, qos)
        return self.subscribed.get(timeout=PATIENCE)

    def publish(self, topic, payload, qos=2, retain=False, **more):
        self.paho.publish(topic, payload, qos, retain, **more).wait_for_publish(PATIENCE)

    def message(self):
        return self.messages.get(timeout=PATIENCE)

    def close(self):
        self.paho.disconnect()
        self.paho.loop_stop()

    def vanish(self):
        self.paho.loop_stop()
        self.paho._sock_close()


def every_qos():
    publisher, subscriber = Client("p"), Client("s")
    reasons = subscriber.subscribe([("t/#", 2)]) if not V5 else subscriber.subscribe("t/#", 2)
    assert [reason.value for reason in reasons] == [2], reasons
    for qos in range(3):
        publisher.publish(f"t/{qos}", f"payload {qos}", qos)
        message = subscriber.message()
        assert (message.topic, message.qos, message.payload) == (f"t/{qos}", qos, f"payload {qos}".encode()), message
    publisher.close()
    subscriber.close()


def many_in_order():
    publisher, subscriber = Client("p"), Client("s")
    subscriber.subscribe("many", 2)
    for number in range(500):
        publisher.paho.publish("many", str(number), number % 2 + 1)
    got = {1: [], 2: []}
    for _ in range(500):
        message = subscriber.message()
        got[message.qos].append(int(message.payload))
    # Order is promised for messages of one QoS.
    assert got == {1: list(range(0, 500, 2)), 2: list(range(1, 500, 2))}
    publisher.close()
    subscriber.close()


def session():
    subscriber = Client("sleeper", clean=False)
    assert not subscriber.flags.session_present
    subscriber.subscribe("q", 2)
    subscriber.close()
    publisher = Client("p")
    for number in range(20):
        publisher.publish("q", str(number), 1 + number % 2)
    subscriber = Client("sleeper", clean=False)
    assert subscriber.flags.session_present
    got = sorted(int(subscriber.message().payload) for _ in range(20))
    assert got == list(range(20)), got
    publisher.close()
    subscriber.close()


def retained():
    publisher = Client("p")
    publisher.publish("r", "kept", 1, retain=True)
    subscriber = Client("s")
    subscriber.subscribe("r")
    message = subscriber.message()
    assert message.retain and message.payload == b"kept"
    publisher.publish("r", None, 1, retain=True)
    publisher.close()
    subscriber.close()


def will():
    watcher = Client("w")
    watcher.subscribe("will")
    Client("dying", will=("will", "gone", 2)).vanish()
    assert watcher.message().payload == b"gone"
    watcher.close()


def takeover():
    first = Client("same")
    first.paho.reconnect_delay_set(min_delay=60)
    second = Client("same")
    reason = first.disconnected.get(timeout=PATIENCE)
    if V5:
        assert reason.value == 0x8E, reason
    first.paho.loop_stop()
    second.close()


def properties():
    publisher, subscriber = Client("p"), Client("s")
    subscriber.paho.subscribe("props", options=SubscribeOptions(qos=1, retainAsPublished=True))
    subscriber.subscribed.get(timeout=PATIENCE)
    sent = Properties(PacketTypes.PUBLISH)
    sent.UserProperty = [("a", "1"), ("a", "2")]
    sent.ResponseTopic = "answer"
    sent.CorrelationData = b"\x01\x02"
    sent.TopicAlias = 3
    publisher.publish("props", "x", 1, properties=sent)
    got = subscriber.message().properties
    assert got.UserProperty == sent.UserProperty and got.ResponseTopic == "answer", got
    assert got.CorrelationData == b"\x01\x02" and not hasattr(got, "TopicAlias"), got
    publisher.close()
    subscriber.close()


for scenario in [every_qos, many_in_order, session, retained, will, properties if V5 else takeover]:
    scenario()
    print("ok", scenario.__name__, flush=True)
