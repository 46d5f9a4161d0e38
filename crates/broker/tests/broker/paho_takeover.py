"""One client identifier at two brokers: paho_takeover.py VERSION PORT PORT CA CERT KEY. Prints what the first connection is told when the second one is made, and after how many milliseconds."""

import queue
import sys
import time

import paho.mqtt.client as mqtt

VERSION, FIRST, SECOND, CA, CERT, KEY = sys.argv[1:7]
PATIENCE = 30


def connect(port):
    """A connected client that stays away when it is disconnected, and what it is told then."""
    connected, disconnected = queue.Queue(), queue.Queue()
    protocol = mqtt.MQTTv5 if VERSION == "5" else mqtt.MQTTv311
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "moves", protocol=protocol, reconnect_on_failure=False)
    client.tls_set(CA, CERT, KEY)
    client.on_connect = lambda client, data, flags, reason, properties: connected.put(reason)
    client.on_disconnect = lambda client, data, flags, reason, properties: disconnected.put((flags.is_disconnect_packet_from_server, reason))
    client.connect("localhost", int(port))
    client.loop_start()
    reason = connected.get(timeout=PATIENCE)
    assert not reason.is_failure, reason
    return client, disconnected


first, told = connect(FIRST)
second, _ = connect(SECOND)
since = time.monotonic()
is_told, reason = told.get(timeout=PATIENCE)
took = time.monotonic() - since
print(reason if is_told else "closed")
print(f"{1000 * took:.1f} ms")
assert second.is_connected()
second.disconnect()
for client in (first, second):
    client.loop_stop()
