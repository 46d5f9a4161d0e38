// Scenarios with MQTT.js: mqttjs_scenarios.cjs VERSION PORT CA CERT KEY. Prints one "ok NAME" for each; exit status 1 on a
// failure. NODE_PATH names the directory in which the module `mqtt` is.

const assert = require("node:assert");
const { once } = require("node:events");
const { readFileSync } = require("node:fs");
const mqtt = require("mqtt");

const [version, port, ca, cert, key] = process.argv.slice(2);
const V5 = version === "5";
const PATIENCE = 30_000;

/** A client that is connected; what it hears waits in a queue. */
class Client {
  static async open(clientId, { resume = false, will } = {}) {
    const client = new Client();
    client.waiting = [];
    client.mqtt = mqtt.connect({
      protocol: "mqtts",
      host: "localhost",
      port: Number(port),
      ca: readFileSync(ca),
      cert: readFileSync(cert),
      key: readFileSync(key),
      protocolVersion: V5 ? 5 : 4,
      clientId,
      clean: !resume,
      properties: V5 && resume ? { sessionExpiryInterval: 60 } : undefined,
      will,
      reconnectPeriod: 0,
      connectTimeout: PATIENCE,
    });
    // Before the connection stands: what waited for the session comes with it.
    client.mqtt.on("message", (topic, payload, packet) => client.waiting.push(packet) && client.mqtt.emit("heard"));
    [client.connack] = await once(client.mqtt, "connect", { signal: AbortSignal.timeout(PATIENCE) });
    return client;
  }

  async message() {
    while (this.waiting.length === 0) await once(this.mqtt, "heard", { signal: AbortSignal.timeout(PATIENCE) });
    return this.waiting.shift();
  }

  async subscribe(topic, qos = 2) {
    const granted = await this.mqtt.subscribeAsync(topic, { qos });
    assert.deepStrictEqual(granted.map((one) => one.qos), [qos]);
  }

  publish(topic, payload, options) {
    return this.mqtt.publishAsync(topic, payload, options);
  }

  close() {
    return this.mqtt.endAsync();
  }

  vanish() {
    this.mqtt.stream.destroy();
  }
}

async function every_qos() {
  const [publisher, subscriber] = [await Client.open("p"), await Client.open("s")];
  await subscriber.subscribe("t/#");
  for (const qos of [0, 1, 2]) {
    await publisher.publish(`t/${qos}`, `payload ${qos}`, { qos });
    const { topic, qos: got, payload } = await subscriber.message();
    assert.deepStrictEqual([topic, got, payload.toString()], [`t/${qos}`, qos, `payload ${qos}`]);
  }
  await publisher.close();
  await subscriber.close();
}

async function retained() {
  const publisher = await Client.open("p");
  await publisher.publish("r", "kept", { qos: 1, retain: true });
  const subscriber = await Client.open("s");
  await subscriber.subscribe("r");
  const { retain, payload } = await subscriber.message();
  assert.deepStrictEqual([retain, payload.toString()], [true, "kept"]);
  await publisher.publish("r", "", { qos: 1, retain: true });
  await publisher.close();
  await subscriber.close();
}

async function will() {
  const watcher = await Client.open("w");
  await watcher.subscribe("will");
  const dying = await Client.open("dying", { will: { topic: "will", payload: Buffer.from("gone"), qos: 2 } });
  dying.vanish();
  assert.strictEqual((await watcher.message()).payload.toString(), "gone");
  await watcher.close();
}

async function session() {
  let subscriber = await Client.open("sleeper", { resume: true });
  assert.strictEqual(subscriber.connack.sessionPresent, false);
  await subscriber.subscribe("q");
  await subscriber.close();
  const publisher = await Client.open("p");
  for (let number = 0; number < 20; number++) await publisher.publish("q", String(number), { qos: 1 + (number % 2) });
  subscriber = await Client.open("sleeper", { resume: true });
  assert.strictEqual(subscriber.connack.sessionPresent, true);
  const got = [];
  while (got.length < 20) got.push(Number((await subscriber.message()).payload.toString()));
  assert.deepStrictEqual(got.sort((a, b) => a - b), [...Array(20).keys()]);
  await publisher.close();
  await subscriber.close();
}

(async () => {
  for (const scenario of [every_qos, retained, will, session]) {
    await scenario();
    console.log("ok", scenario.name);
  }
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
