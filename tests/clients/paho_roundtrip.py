"""Publishes and receives with paho-mqtt through one address. Prints `ok` when all that was sent came back, once, in order.

Arguments: HOST PORT VERSION(311 or 5) TLS-DIRECTORY
"""

import ssl
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

HOST, PORT, VERSION, TLS = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
PROTOCOL = mqtt.MQTTv5 if VERSION == "5" else mqtt.MQTTv311
TOPIC = f"paho/{VERSION}"
COUNT = 30


def client(name):
    made = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"paho-{VERSION}-{name}", protocol=PROTOCOL)
    context = ssl.create_default_context(cafile=f"{TLS}/ca.crt")
    context.load_cert_chain(f"{TLS}/{name}.crt", f"{TLS}/{name}.key")
    made.tls_set_context(context)
    return made


def properties():
    if VERSION != "5":
        return None
    made = Properties(PacketTypes.PUBLISH)
    made.ContentType = "text/plain"
    made.ResponseTopic = "answers/here"
    made.CorrelationData = b"\x00\x01"
    made.MessageExpiryInterval = 60
    made.UserProperty = [("a", "1"), ("a", "2")]
    return made


received = []
subscribed, complete = threading.Event(), threading.Event()


def on_message(_client, _data, message):
    received.append(message)
    if len(received) == COUNT:
        complete.set()


subscriber = client("sub")
subscriber.on_connect = lambda c, *_: c.subscribe(f"{TOPIC}/#", qos=2)
subscriber.on_subscribe = lambda *_: subscribed.set()
subscriber.on_message = on_message
subscriber.connect(HOST, PORT)
subscriber.loop_start()
assert subscribed.wait(10), "no SUBACK"

publisher = client("pub")
publisher.connect(HOST, PORT)
publisher.loop_start()
sent = [(f"{TOPIC}/{n % 3}", str(n).encode(), n % 3) for n in range(COUNT)]
for topic, payload, qos in sent:
    publisher.publish(topic, payload, qos=qos, properties=properties()).wait_for_publish(10)
assert complete.wait(10), f"{len(received)} of {COUNT} came"

# A client hands a QoS 2 message over when PUBREL comes, so order is looked at within one QoS.
for qos in (0, 1, 2):
    came = [(m.topic, m.payload, m.qos) for m in received if m.qos == qos]
    assert came == [one for one in sent if one[2] == qos], f"QoS {qos}: {came}"
assert not any(m.retain or m.dup for m in received)
if VERSION == "5":
    for message in received:
        p = message.properties
        assert p.ContentType == "text/plain" and p.ResponseTopic == "answers/here", p
        assert p.CorrelationData == b"\x00\x01" and p.UserProperty == [("a", "1"), ("a", "2")], p
        assert 50 < p.MessageExpiryInterval <= 60, p

for c in (publisher, subscriber):
    c.disconnect()
    c.loop_stop()
print("ok")
