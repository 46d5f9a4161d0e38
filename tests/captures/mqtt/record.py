#!/usr/bin/env python3
"""Records what MQTT peers say to each other, one `.hex` file for each session.

Starts mosquitto on a free loopback port, a relay before it, and clients that connect to the relay. Needs Debian's
`mosquitto` and `mosquitto-clients` and Python's `paho-mqtt`. Overwrites the `.hex` files beside this script.
"""

import pathlib
import socket
import subprocess
import tempfile
import threading
import time

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

HERE = pathlib.Path(__file__).parent


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def packets(stream):
    """Splits bytes into packets; yields them and returns what is left."""
    at = 0
    while True:
        length, shift, body = 0, 0, at + 1
        while True:
            if body >= len(stream):
                return stream[at:]
            length |= (stream[body] & 0x7F) << shift
            shift += 7
            body += 1
            if not stream[body - 1] & 0x80:
                break
        if body + length > len(stream):
            return stream[at:]
        yield stream[at : body + length]
        at = body + length


class Relay:
    """Relays one connection and notes its packets in the order in which they pass."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.lines = []
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        client, _ = self.listener.accept()
        server = socket.create_connection(("127.0.0.1", self.upstream))
        back = threading.Thread(target=self.pump, args=("S", server, client))
        back.start()
        self.pump("C", client, server)
        back.join()
        client.close()
        server.close()

    def pump(self, side, source, sink):
        pending = b""
        while data := source.recv(65536):
            with self.lock:
                pending += data
                splitter = packets(pending)
                while True:
                    try:
                        self.lines.append((side, next(splitter)))
                    except StopIteration as end:
                        pending = end.value
                        break
                sink.sendall(data)
        try:
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def save(self, name, version, about):
        self.thread.join(timeout=20)
        assert not self.thread.is_alive(), f"{name} did not end"
        self.listener.close()
        with open(HERE / f"{name}.hex", "w") as out:
            print(f"# {about}", file=out)
            print(f"version {version}", file=out)
            for side, packet in self.lines:
                print(side, packet.hex(" "), file=out)


class Broker:
    def __init__(self, folder, *settings):
        self.port = free_port()
        config = pathlib.Path(folder) / f"mosquitto-{self.port}.conf"
        config.write_text("\n".join([f"listener {self.port} 127.0.0.1", *settings]) + "\n")
        self.process = subprocess.Popen(["mosquitto", "-c", str(config)], stderr=subprocess.DEVNULL)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError("mosquitto does not listen")


def pub(port, *arguments):
    return subprocess.run(["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), *arguments], stderr=subprocess.DEVNULL)


def mosquitto_pub(broker, name, version, *arguments):
    relay = Relay(broker.port)
    pub(relay.port, *arguments)
    relay.save(name, version, "mosquitto_pub " + " ".join(arguments))


def mosquitto_sub(broker, name, version, publications, *arguments):
    relay = Relay(broker.port)
    command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(relay.port), *arguments]
    subscriber = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait(lambda: any(packet[0] == 0x90 for _, packet in relay.lines))
    for publication in publications:
        pub(broker.port, *publication)
    subscriber.wait(timeout=20)
    relay.save(name, version, "mosquitto_sub " + " ".join(arguments))


def wait(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def properties(kind, **values):
    found = Properties(kind)
    for name, value in values.items():
        setattr(found, name, value)
    return found


def record_paho_311(broker):
    relay = Relay(broker.port)
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="paho-311", protocol=paho.MQTTv311)
    client.username_pw_set("user", "secret")
    client.will_set("paho/will", "gone", qos=1, retain=True)
    received = []
    client.on_message = lambda *rest: received.append(rest[2])
    client.connect("127.0.0.1", relay.port, keepalive=2)
    client.loop_start()
    wait(client.is_connected)
    client.subscribe([("paho/+/a", 0), ("paho/#", 2)])
    wait(lambda: any(packet[0] == 0x90 for _, packet in relay.lines))
    for qos in range(3):
        client.publish("paho/x/b", f"qos {qos}", qos=qos).wait_for_publish(10)
    wait(lambda: len(received) == 3 and any(packet[0] == 0xD0 for _, packet in relay.lines))
    client.unsubscribe(["paho/+/a", "paho/#"])
    wait(lambda: any(packet[0] == 0xB0 for _, packet in relay.lines))
    client.disconnect()
    client.loop_stop()
    relay.save("paho-311", 4, "paho-mqtt, MQTT 3.1.1: will, user name, QoS 0 to 2 both ways, ping, unsubscribe")


def record_paho_5(broker):
    relay = Relay(broker.port)
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="paho-5", protocol=paho.MQTTv5)
    client.will_set(
        "paho/will",
        b"\x00\x01",
        qos=2,
        properties=properties(PacketTypes.WILLMESSAGE, WillDelayInterval=5, ContentType="bin", UserProperty=("w", "1")),
    )
    received = []
    client.on_message = lambda *rest: received.append(rest[2])
    connect = properties(
        PacketTypes.CONNECT, SessionExpiryInterval=60, ReceiveMaximum=10, MaximumPacketSize=65536,
        TopicAliasMaximum=8, RequestProblemInformation=1, UserProperty=[("a", "1"), ("a", "2")],
    )
    client.connect("127.0.0.1", relay.port, clean_start=True, properties=connect)
    client.loop_start()
    wait(client.is_connected)
    options = SubscribeOptions(qos=2, noLocal=False, retainAsPublished=True, retainHandling=1)
    others = SubscribeOptions(qos=1, noLocal=True, retainHandling=2)
    client.subscribe(
        [("five/#", options), ("$share/g/other", SubscribeOptions(qos=1)), ("mine", others)],
        properties=properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=300, UserProperty=("s", "ü")),
    )
    wait(lambda: any(packet[0] == 0x90 for _, packet in relay.lines))
    message = properties(
        PacketTypes.PUBLISH, PayloadFormatIndicator=1, MessageExpiryInterval=90, ContentType="text/plain",
        ResponseTopic="five/answer", CorrelationData=b"\x01\x02", UserProperty=[("k", "v")],
    )
    for qos in range(3):
        client.publish("five/x", f"qos {qos}", qos=qos, retain=qos == 1, properties=message).wait_for_publish(10)
    client.publish("nobody/listens", "", qos=1).wait_for_publish(10)
    wait(lambda: len(received) == 3)
    client.unsubscribe(
        ["five/#", "never"], properties=properties(PacketTypes.UNSUBSCRIBE, UserProperty=("u", "1"))
    )
    wait(lambda: any(packet[0] == 0xB0 for _, packet in relay.lines))
    client.disconnect(
        ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message"),
        properties(PacketTypes.DISCONNECT, SessionExpiryInterval=0, ReasonString="done"),
    )
    client.loop_stop()
    relay.save("paho-5", 5, "paho-mqtt, MQTT 5.0: properties on every packet, subscription options, QoS 0 to 2")


def main():
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(folder, "allow_anonymous true")
        closed = Broker(folder, "allow_anonymous false")
        try:
            will = ["--will-topic", "will/t", "--will-payload", "bye", "--will-qos", "2", "--will-retain"]
            for qos in "012":
                mosquitto_pub(
                    broker, f"pub-311-qos{qos}", 4, "-V", "mqttv311", "-i", f"pub{qos}", "-t", "a/b", "-m",
                    f"qos {qos}", "-q", qos, "-r", *will, "-u", "user", "-P", "secret",
                )
            mosquitto_pub(broker, "pub-31", 3, "-V", "mqttv31", "-i", "old", "-t", "a/b", "-m", "old", "-q", "2")
            mosquitto_pub(
                broker, "pub-5", 5, "-V", "mqttv5", "-i", "pub5", "-t", "five/props", "-m", "hello", "-q", "2", *will,
                "-x", "120", "-k", "30", "-P", "alone",
                *"-D connect receive-maximum 20 -D connect user-property c 1 -D connect topic-alias-maximum 5".split(),
                *"-D connect request-problem-information 1 -D connect maximum-packet-size 100000".split(),
                *"-D will will-delay-interval 7 -D will user-property w 1 -D will content-type x".split(),
                *"-D will message-expiry-interval 9 -D will payload-format-indicator 1".split(),
                *"-D publish content-type text/plain -D publish correlation-data abc".split(),
                *"-D publish message-expiry-interval 3600 -D publish payload-format-indicator 1".split(),
                *"-D publish response-topic five/answer -D publish user-property k v".split(),
                *"-D publish user-property k w -D publish topic-alias 3".split(),
                *"-D disconnect user-property d 1 -D disconnect reason-string end".split(),
            )
            mosquitto_pub(closed, "refused-311", 4, "-V", "mqttv311", "-i", "nobody", "-t", "a", "-n")
            mosquitto_pub(closed, "refused-5", 5, "-V", "mqttv5", "-i", "nobody", "-t", "a", "-n")
            publications = [("-t", "s/a", "-m", f"qos {qos}", "-q", qos) for qos in "012"]
            mosquitto_sub(
                broker, "sub-311", 4, publications, "-V", "mqttv311", "-i", "sub311", "-q", "2", "-t", "s/+", "-t",
                "other/#", "-U", "never", "-c", "-C", "3",
            )
            properties = [
                ("-V", "mqttv5", *publication, *"-D publish user-property k v".split(), "-r")
                for publication in publications
            ]
            mosquitto_sub(
                broker, "sub-5", 5, properties, "-V", "mqttv5", "-i", "sub5", "-q", "2", "-t", "s/#", "-U", "never",
                "--retain-as-published", "-c", "-x", "4294967295", "-C", "3",
                *"-D subscribe subscription-identifier 77 -D subscribe user-property s 1".split(),
                *"-D unsubscribe user-property u 1".split(),
            )
            record_paho_311(broker)
            record_paho_5(broker)
        finally:
            broker.process.terminate()
            closed.process.terminate()
            broker.process.wait()
            closed.process.wait()


if __name__ == "__main__":
    main()
