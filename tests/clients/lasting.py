"""Clients of paho-mqtt whose sessions outlive their connections and the broker."""

import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

# How long anything may take that must come, in seconds.
PATIENCE = 60
# Of a session, in seconds: longer than any test.
EXPIRY = 100_000


class Paho(mqtt.Client):
    """paho-mqtt forgets with its second attempt to connect that it has sent PUBREL, and would send the PUBLISH again, which
    `[MQTT-4.3.3-6]` forbids."""

    def _messages_reconnect_reset_out(self):
        released = mqtt.mqtt_ms_wait_for_pubcomp, mqtt.mqtt_ms_resend_pubrel
        before = [message for message in self._out_messages.values() if message.state in released]
        super()._messages_reconnect_reset_out()
        for message in before:
            message.state = mqtt.mqtt_ms_resend_pubrel


class Lasting:
    """Connects again by itself. Hands every message to `take(topic, payload)`, and for each of its own that is done with
    `told(mid, is_refused)`; both in its own thread."""

    def __init__(self, name, version, address, topic=None, tls=None, take=None, told=None):
        self.is_v5, self.address, self.topic = version == "5", address, topic
        # How often its session was not there any more.
        self.forgotten = 0
        self.first, self.ready = True, threading.Event()
        options = {} if self.is_v5 else {"clean_session": False}
        protocol = mqtt.MQTTv5 if self.is_v5 else mqtt.MQTTv311
        self.paho = Paho(mqtt.CallbackAPIVersion.VERSION2, name, protocol=protocol, **options)
        if tls:
            self.paho.tls_set_context(tls)
        self.paho.reconnect_delay_set(0.02, 0.05)
        self.paho.on_connect = self.on_connect
        self.paho.on_subscribe = lambda *_: self.ready.set()
        self.paho.on_message = lambda client, data, message: take(message.topic, message.payload)
        self.paho.on_publish = lambda client, data, mid, reason, properties: told(mid, reason.is_failure)
        self.connect()
        assert self.ready.wait(PATIENCE)

    def connect(self):
        """Connects, to the session that is there."""
        more = {}
        if self.is_v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = EXPIRY
            more = {"clean_start": False, "properties": properties}
        self.paho.connect(*self.address, keepalive=20, **more)
        self.paho.loop_start()

    def on_connect(self, client, data, flags, reason, properties):
        if reason.is_failure:
            # A broker that starts again, or that has no room.
            return
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
