// What the page shows while a load balancer dies and comes back and while a broker is drained: in Chromium, on a desk and on a phone.
//
// The browser runs outside of the lab; socat carries its connections into the lab's client host, and from there to the host whose
// endpoint it asks.

"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const net = require("node:net");
const os = require("node:os");
const path = require("node:path");
const { execFileSync, spawn } = require("node:child_process");
const { chromium } = require("playwright-core");

const BIN = path.resolve(process.argv[2]);
const EVERMQ = path.join(BIN, "evermq");
const SHOTS = path.resolve("target/page");
const HOSTS = { lb1: "198.18.0.11", lb2: "198.18.0.12", broker1: "198.18.0.21", broker2: "198.18.0.22" };
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const DESK = { width: 1280, height: 900 };
const PHONE = { width: 390, height: 844 };
const DEADLINE = 30000;

const directory = fs.mkdtempSync(path.join(os.tmpdir(), "evermq-page-"));
const name = `page-${process.pid}`;
const children = [];
const lab = (...words) => [words[0], "--name", name, "--dir", directory, ...words.slice(1)];
const run = (...words) => execFileSync(EVERMQ, ["lab", ...lab(...words)], { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });

function start(host, command, stdin = "ignore") {
  const child = spawn(EVERMQ, ["lab", ...lab("exec", host, "--", ...command)], { stdio: [stdin, "ignore", "ignore"] });
  children.push(child);
  return child;
}

async function until(what, look) {
  const end = Date.now() + DEADLINE;
  let last;
  for (;;) {
    try {
      const found = await look();
      if (found) return found;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`${what}: not within ${DEADLINE} ms${last ? `: ${last.message}` : ""}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

// A port of this machine that leads to the endpoint of a host of the lab.
async function door(host) {
  const socket = path.join(directory, `${host}.sock`);
  start("client", ["socat", `UNIX-LISTEN:${socket},fork`, `TCP:${HOSTS[host]}:9003`]);
  await until(`the way to ${host}`, () => fs.existsSync(socket));
  const server = net.createServer((stream) => {
    const other = net.connect(socket);
    stream.pipe(other).pipe(stream);
    for (const end of [stream, other]) end.on("error", () => { stream.destroy(); other.destroy(); });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  server.unref();
  return `https://127.0.0.1:${server.address().port}`;
}

async function open(browser, origin, certificate, viewport, options = {}) {
  const pki = path.join(directory, name, "pki");
  const clientCertificates = [{ origin, certPath: path.join(pki, `${certificate}.crt`), keyPath: path.join(pki, `${certificate}.key`) }];
  const context = await browser.newContext({ viewport, ignoreHTTPSErrors: true, clientCertificates, ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on("console", (message) => { if (message.type() === "error") wrong.push(message.text()); });
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("request", (request) => { if (!request.url().startsWith(origin)) wrong.push(`asks ${request.url()}`); });
  await until(`the page of ${origin}`, () => page.goto(origin));
  await page.waitForSelector("#live.on", { timeout: DEADLINE });
  return { page, wrong };
}

const verdict = (page) => page.textContent("#verdict");
const row = (page, host) => page.locator(`tr[data-host="${host}"]`);
const fits = (page) => page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);
const shot = (page, file) => page.screenshot({ path: path.join(SHOTS, `${file}.png`), fullPage: true });

async function look(browser) {
  // Served by a host that stays: whichever lb has no VIP now.
  const holder = await until("one lb has the VIP", () => {
    const status = JSON.parse(run("status", "--json"));
    return status.vip.holders.length === 1 && status.vip.holders[0];
  });
  const other = holder === "lb1" ? "lb2" : "lb1";
  const origin = await door(other);
  const desk = await open(browser, origin, "client", DESK);
  const { page } = desk;
  await until("all is up", async () => (await verdict(page)) === "up");
  await until("clients are there", async () => Number(await page.textContent(".tile:nth-child(2) .value")) >= 6);
  const vip = () => page.textContent(".tile:first-child");
  assert.match(await vip(), new RegExp(`198\\.18\\.0\\.10:9000.*${holder}.*holds it for`, "s"));
  assert.equal(await page.locator(".topology .holder text").first().textContent(), holder);
  assert.equal(await page.locator(".hosts tbody tr").count(), 4);
  await until("messages flow", async () => Number(await page.textContent(".tile:nth-child(3) .value")) > 5);
  await shot(page, "desk-up");

  const phone = await open(browser, origin, "client", PHONE, { isMobile: true, hasTouch: true, deviceScaleFactor: 2, colorScheme: "dark" });
  await until("the phone shows it too", async () => (await verdict(phone.page)) === "up");
  assert.ok(await fits(phone.page), "the phone has to scroll sideways");
  await shot(phone.page, "phone-up");

  const reader = await open(browser, origin, "pub", DESK);
  assert.match(await reader.page.textContent("#you"), /pub may look/);
  assert.equal(await reader.page.locator("button:visible").count(), 0, "a reader has nothing to press");

  // The holder's plug is pulled.
  const begun = Date.now();
  run("kill", holder);
  await until("the other lb has the VIP", async () => new RegExp(`${other}.*holds it for`, "s").test(await vip()));
  console.log(`the page shows the new holder ${Date.now() - begun} ms after the plug was pulled`);
  await until("the dead host is silent", async () => (await row(page, holder).locator(".pill").first().textContent()) === "silent");
  assert.equal(await verdict(page), "degraded");
  assert.match(await page.textContent("#reasons"), new RegExp(`${holder} is silent`));
  const taken = page.locator("#events li").filter({ hasText: "VIP 198.18.0.10" }).filter({ hasText: other }).first();
  assert.match(await taken.locator(".change").textContent(), /backup → master/);
  assert.match(await taken.locator(".outage").textContent(), /^\d+ ms$/);
  assert.match(await taken.locator(".cause").textContent(), /fell silent/);
  await shot(page, "desk-failover");
  await until("the phone shows it too", async () => (await verdict(phone.page)) === "degraded");
  assert.ok(await fits(phone.page), "the phone has to scroll sideways");
  await shot(phone.page, "phone-failover");

  run("heal", holder);
  await until("all is up again", async () => (await verdict(page)) === "up");

  // An admin drains a broker, and lets it serve again.
  await row(page, "broker1").getByRole("button", { name: "Drain" }).click();
  await page.waitForSelector("dialog[open]");
  await shot(page, "desk-dialog");
  await page.getByRole("button", { name: "Leave it" }).click();
  assert.equal(await page.locator("dialog[open]").count(), 0);
  await row(page, "broker1").getByRole("button", { name: "Drain" }).click();
  await page.getByRole("button", { name: "Drain it" }).click();
  await until("it is drained", async () => /drains/.test(await row(page, "broker1").textContent()));
  await until("its clients have gone", async () => /^0$/.test((await row(page, "broker1").locator('td[data-title="Clients"]').textContent()).trim()));
  await shot(page, "desk-drained");
  await row(page, "broker1").getByRole("button", { name: "Let it serve" }).click();
  await page.locator("#ask-yes").click();
  await until("all is up again", async () => (await verdict(page)) === "up");
  await until("who did it is told", async () => /an operator drains a broker/.test(await page.textContent("#events")));

  // What a broker was told on its own host, this host's lb cannot take back, and the page says who can.
  run("exec", "broker1", "--", EVERMQ, "drain", "broker1");
  await until("how that ends", async () => /evermq drain broker1 --undo/.test(await row(page, "broker1").textContent()));
  assert.equal(await row(page, "broker1").getByRole("button").count(), 0);
  run("exec", "broker1", "--", EVERMQ, "drain", "broker1", "--undo");
  await until("it can be drained again", async () => (await row(page, "broker1").getByRole("button", { name: "Drain" }).count()) === 1);

  for (const shown of [desk, phone, reader]) assert.deepEqual(shown.wrong, []);
}

async function main() {
  fs.mkdirSync(SHOTS, { recursive: true });
  run("up", "--set", 'admin.admins=["client"]', "--set", 'admin.readers=["pub"]', "--set", "lb.slow_start=0s");
  let browser;
  try {
    const tls = ["-h", "198.18.0.10", "-p", "9000", "--cafile", "/etc/evermq/tls/ca.crt",
      "--cert", "/etc/evermq/tls/client.crt", "--key", "/etc/evermq/tls/client.key"];
    const again = (words, stdin) => {
      const child = start("client", [EVERMQ, ...words, ...tls], stdin);
      child.on("exit", () => { if (!over) setTimeout(() => again(words, stdin), 300); });
      if (stdin === "pipe") {
        child.stdin.on("error", () => {});
        const beat = setInterval(() => child.stdin.write(`${Date.now()}\n`), 50);
        child.on("exit", () => clearInterval(beat));
      }
    };
    for (let number = 0; number < 6; number += 1) again(["sub", "-t", "plant/#", "-i", `sub${number}`, "-q", "1"], "ignore");
    again(["pub", "-t", "plant/7", "-i", "pub", "-q", "1", "-l"], "pipe");
    browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: FLAGS });
    await look(browser);
    console.log(`the page is as it should be; screenshots are in ${path.relative(process.cwd(), SHOTS)}`);
  } finally {
    over = true;
    if (browser) await browser.close();
    for (const child of children) child.kill("SIGKILL");
    run("down");
    fs.rmSync(directory, { recursive: true, force: true });
  }
}

let over = false;
main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
