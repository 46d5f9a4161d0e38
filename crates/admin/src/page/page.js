"use strict";

// Everything that is shown comes as text: nothing of an answer is ever taken for markup.

const SVG = "http://www.w3.org/2000/svg";
const PERIOD = 1000;
const SAMPLES = 120;
const GOOD = ["up", "connected", "ready", "good", "master", "streaming", "written"];
const BAD = ["down", "suspect", "rejecting", "backoff", "away", "failed", "full", "initialize", "not ready"];

const byId = (id) => document.getElementById(id);
const history = { clients: [], received: [], sent: [] };
const state = { after: 0, failures: 0, narrow: null, drawn: "", busy: new Set() };

function node(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function span(millis) {
  const seconds = Math.floor(millis / 1000);
  if (millis < 1000) return `${millis} ms`;
  if (seconds < 60) return millis < 10000 ? `${(millis / 1000).toFixed(2)} s` : `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

function figure(number) {
  if (number === null || number === undefined) return "–";
  if (number >= 1e6) return `${(number / 1e6).toFixed(1)}M`;
  if (number >= 1e4) return `${(number / 1e3).toFixed(1)}k`;
  return number >= 10 || Number.isInteger(number) ? String(Math.round(number)) : number.toFixed(1);
}

const total = (values) => {
  const known = values.filter((value) => value !== null && value !== undefined);
  return known.length ? known.reduce((sum, value) => sum + value, 0) : null;
};

// Tiles

function tile(name, value, note, { mood = "", samples = null } = {}) {
  const made = node("div", { class: `tile ${mood}${samples ? " drawn" : ""}` },
    node("div", { class: "name" }, name), node("div", { class: "value" }, value), node("div", { class: "note" }, note));
  if (samples) made.append(spark(samples));
  return made;
}

function spark(samples) {
  const most = Math.max(1, ...samples);
  const points = samples.map((value, index) => {
    const steps = Math.max(samples.length, SAMPLES / 4) - 1;
    const x = 200 * (1 - (samples.length - 1 - index) / steps);
    return `${x.toFixed(1)} ${(30 - (value / most) * 26).toFixed(1)}`;
  });
  const first = points[0] ? points[0].split(" ")[0] : 200;
  const svg = drawn("svg", { viewBox: "0 0 200 32", preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(drawn("path", { d: `M${first} 34 L${points.join(" L")} L202 34 Z` }));
  return svg;
}

function tiles(overview, now) {
  const vips = overview.vips.map((vip) => {
    const port = vip.address.includes(":") ? `[${vip.address}]:${vip.port}` : `${vip.address}:${vip.port}`;
    const since = vip.since ? ` for ${span(Math.max(0, now - Date.parse(vip.since)))}` : "";
    const who = vip.holders.length ? vip.holders.join(" and ") : "nobody";
    return tile(`VIP ${port}`, who, vip.holders.length === 1 ? `holds it${since}` : vip.holders.length ? "hold it at once" : "holds it",
      { mood: vip.holders.length === 1 ? "" : "bad" });
  });
  const hosts = overview.hosts;
  const clients = total(hosts.map((host) => host.broker_connections));
  const received = total(hosts.map((host) => host.rates && host.rates.in));
  const sent = total(hosts.map((host) => host.rates && host.rates.out));
  for (const [name, value] of [["clients", clients], ["received", received], ["sent", sent]]) {
    history[name].push(value || 0);
    if (history[name].length > SAMPLES) history[name].shift();
  }
  const lags = hosts.filter((host) => host.lag);
  const lag = lags.length ? Math.max(...lags.map((host) => host.lag.messages)) : null;
  const seconds = lags.length ? Math.max(...lags.map((host) => host.lag.seconds)) : 0;
  const days = overview.certificate_days;
  byId("tiles").replaceChildren(...vips,
    tile("Clients", figure(clients), "at all brokers", { samples: history.clients }),
    tile("Messages in", figure(received), "a second", { samples: history.received }),
    tile("Messages out", figure(sent), "a second", { samples: history.sent }),
    tile(lag ? "Mesh lag" : "Certificates", lag ? figure(lag) : days === null ? "–" : `${days} d`,
      lag ? `messages, ${seconds.toFixed(1)} s` : "until the first ends",
      { mood: lag ? (seconds > 10 ? "bad" : "warn") : days !== null && days < 30 ? "warn" : "" }));
}

// Topology: clients, load balancers, brokers; from left to right, or downwards where it is narrow.

function topology(overview) {
  const lbs = overview.hosts.filter((host) => host.roles.includes("lb"));
  const brokers = overview.hosts.filter((host) => host.roles.includes("broker"));
  const holders = new Set(overview.vips.flatMap((vip) => vip.holders));
  const narrow = window.innerWidth < 700;
  const key = JSON.stringify([lbs, brokers, [...holders], narrow]);
  if (key === state.drawn) return;
  state.drawn = key;

  const [wide, high] = narrow ? [150, 62] : [190, 66];
  const most = Math.max(lbs.length, brokers.length, 1);
  const along = narrow ? most * (wide + 20) + 20 : most * (high + 34) + 30;
  const size = narrow ? [Math.max(along, 340), 430] : [1000, Math.max(along, 190)];
  const place = (layer, index, count) => {
    const middle = (narrow ? size[0] : size[1]) / 2;
    const offset = (index - (count - 1) / 2) * (narrow ? wide + 20 : high + 34);
    return narrow ? [middle + offset, [38, 180, 350][layer]] : [[110, 470, 890][layer], middle + offset];
  };
  const svg = drawn("svg", { viewBox: `0 0 ${size[0]} ${size[1]}`, role: "img", "aria-label": "clients, load balancers and brokers" });
  const wires = drawn("g");
  const boxes = drawn("g");
  const labels = drawn("g");
  svg.append(wires, boxes, labels);

  const box = (at, title, sub, classes) => {
    const group = drawn("g", { class: classes });
    group.append(drawn("rect", { x: at[0] - wide / 2, y: at[1] - high / 2, width: wide, height: high, rx: 12 }));
    group.append(drawn("text", { x: at[0], y: at[1] - 4, "text-anchor": "middle" }, title));
    group.append(drawn("text", { x: at[0], y: at[1] + 16, "text-anchor": "middle", class: "sub" }, sub));
    boxes.append(group);
  };
  const wire = (from, to, kind, label, share = 0.5) => {
    const [a, b] = narrow
      ? [[from[0], from[1] + high / 2], [to[0], to[1] - high / 2]]
      : [[from[0] + wide / 2, from[1]], [to[0] - wide / 2, to[1]]];
    const bend = narrow ? [0, (b[1] - a[1]) / 2] : [(b[0] - a[0]) / 2, 0];
    const d = `M${a[0]} ${a[1]} C${a[0] + bend[0]} ${a[1] + bend[1]} ${b[0] - bend[0]} ${b[1] - bend[1]} ${b[0]} ${b[1]}`;
    const path = drawn("path", { class: `wire ${kind}`, d });
    // What carries clients lies above what stands by.
    if (kind === "on") wires.append(path);
    else wires.prepend(path);
    if (label) {
      const t = share;
      const at = (axis) => (1 - t) ** 3 * a[axis] + 3 * (1 - t) ** 2 * t * (a[axis] + bend[axis])
        + 3 * (1 - t) * t ** 2 * (b[axis] - bend[axis]) + t ** 3 * b[axis];
      labels.append(drawn("text", { class: "count", x: at(0), y: at(1) + 4, "text-anchor": "middle" }, label));
    }
  };
  const clients = place(0, 0, 1);
  const condition = (host) => (host.readiness === "draining" ? "draining" : host.state.replace(" ", "-"));
  const count = (number, word) => (number === null ? "no answer" : `${figure(number)} ${word}${number === 1 ? "" : "s"}`);

  lbs.forEach((lb, index) => {
    const at = place(1, index, lbs.length);
    const holds = holders.has(lb.host);
    wire(clients, at, lb.state === "silent" || lb.state === "down" ? "off" : holds ? "on" : "", holds ? "VIP" : "");
    lb.backends.forEach((backend) => {
      const target = brokers.findIndex((broker) => broker.host === backend.name);
      if (target < 0) return;
      const up = backend.state === "up" || backend.state === "unproven";
      const kind = !up && backend.state !== "draining" ? "off" : backend.connections > 0 ? "on" : "";
      // Near the broker wires of one lb lie apart; those of several lbs to one broker are told apart by where the number stands.
      const share = 0.62 + (index % 2) * 0.18;
      wire(at, place(2, target, brokers.length), kind, backend.connections > 0 ? figure(backend.connections) : "", share);
    });
    const sub = holds ? `VIP · ${count(lb.lb_connections, "client")}` : lb.lb_connections === null ? lb.state : "stands by";
    box(at, lb.host, sub, `${condition(lb)}${holds ? " holder" : ""}`);
  });
  brokers.forEach((broker, index) => {
    const rates = broker.rates ? `, ${figure(broker.rates.in)}/s` : "";
    const sub = broker.broker_connections === null ? broker.state : count(broker.broker_connections, "client") + rates;
    box(place(2, index, brokers.length), broker.host, sub, condition(broker));
  });
  box(clients, "Clients", count(total(brokers.map((broker) => broker.broker_connections)), "connection"), "clients");
  byId("topology").replaceChildren(svg);
}

// Hosts

const COLUMNS = ["Host", "State", "Clients", "In/s", "Out/s", "Lag", "Version", "Note", ""];

function hosts(overview, { drains, host: server }) {
  const holders = new Set(overview.vips.flatMap((vip) => vip.holders));
  // What operators said of a broker, as the lbs know it.
  const said = new Map();
  for (const host of overview.hosts) {
    for (const backend of host.backends) if (backend.admin !== "ready") said.set(backend.name, backend.admin);
  }
  const rows = overview.hosts.map((host) => {
    const draining = host.readiness === "draining" || said.get(host.host) === "drain";
    const pills = node("span", {}, node("span", { class: `pill ${host.state}` }, host.state));
    if (holders.has(host.host)) pills.append(node("span", { class: "pill vip" }, "VIP"));
    if (draining) pills.append(node("span", { class: "pill draining" }, "drains"));
    const clients = [host.lb_connections, host.broker_connections].filter((number) => number !== null).map(figure).join(" / ");
    const lag = host.lag ? (host.lag.messages ? `${figure(host.lag.messages)} (${host.lag.seconds.toFixed(1)} s)` : "0") : "";
    const cells = [pills, clients, host.rates ? figure(host.rates.in) : "", host.rates ? figure(host.rates.out) : "", lag,
      host.versions.join(", "), node("span", { class: "note" }, host.notes.join("; "))];
    const row = node("tr", { "data-host": host.host, class: draining ? "draining" : host.state.replace(" ", "-") },
      node("td", { class: "host" }, host.host, node("small", {}, `${host.roles.join(", ")} · ${host.address}`)));
    cells.forEach((cell, index) => {
      const text = typeof cell === "string" ? cell : cell.textContent;
      row.append(node("td", { "data-title": COLUMNS[index + 1], class: text ? "" : "blank" }, cell || ""));
    });
    const actions = node("td", { class: drains.includes(host.host) ? "actions" : "blank" });
    // What the broker was told itself, an lb cannot take back.
    const elsewhere = host.readiness === "draining" && said.get(host.host) !== "drain" && host.host !== server;
    if (drains.includes(host.host) && elsewhere) {
      actions.append(node("span", { class: "note" }, `ends on its own page, or with: evermq drain ${host.host} --undo`));
    } else if (drains.includes(host.host)) {
      const button = node("button", { type: "button" }, draining ? "Let it serve" : "Drain");
      button.disabled = state.busy.has(host.host);
      button.addEventListener("click", () => drain(host.host, draining ? "ready" : "drain"));
      actions.append(button);
    }
    row.append(actions);
    return row;
  });
  const focused = document.activeElement && document.activeElement.closest("tr[data-host]");
  const head = node("tr", {}, ...COLUMNS.map((title) => node("th", { scope: "col" }, title)));
  byId("hosts").replaceChildren(node("table", {}, node("thead", {}, head), node("tbody", {}, ...rows)));
  // Rows are made anew: whoever works with the keyboard stays where he is.
  if (focused) {
    const again = [...document.querySelectorAll("tr[data-host]")].find((row) => row.dataset.host === focused.dataset.host);
    const button = again && again.querySelector("button");
    if (button) button.focus();
  }
}

function drain(broker, wanted) {
  const begins = wanted === "drain";
  byId("ask-title").textContent = begins ? `Drain ${broker}?` : `Let ${broker} serve again?`;
  byId("ask-text").textContent = begins
    ? "Its clients are moved to the other brokers, a few each second, and it gets no new ones until you let it serve again."
    : "It gets clients again.";
  byId("ask-yes").textContent = begins ? "Drain it" : "Let it serve";
  const dialog = byId("ask");
  dialog.returnValue = "no";
  dialog.onclose = async () => {
    if (dialog.returnValue !== "yes") return;
    state.busy.add(broker);
    try {
      const answer = await fetch("/api/drain", {
        method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ broker, state: wanted }),
      });
      if (!answer.ok) tell((await answer.json()).error);
    } catch (error) {
      tell(String(error));
    } finally {
      state.busy.delete(broker);
    }
  };
  dialog.showModal();
}

// Events

function events(transitions) {
  const mood = (word) => (GOOD.includes(word) ? "good" : BAD.includes(word) ? "bad" : "");
  const items = transitions.slice().reverse().map((one) => {
    const when = new Date(one.time_ms);
    const change = node("span", { class: "change" });
    if (one.from) change.append(one.from, " → ");
    if (one.to) change.append(node("span", { class: mood(one.to) }, one.to));
    return node("li", { class: one.to ? one.level : `${one.level} said` },
      node("time", { datetime: when.toISOString(), title: when.toISOString() }, when.toLocaleTimeString([], { hour12: false })),
      node("span", { class: "host" }, one.host), node("span", { class: "what" }, one.what), change,
      node("span", { class: "outage" }, one.outage_ms === undefined ? "" : span(one.outage_ms)),
      node("span", { class: "cause" }, one.cause || ""));
  });
  byId("events").replaceChildren(...(items.length ? items : [node("li", { class: "empty" }, "Nothing yet.")]));
}

// The whole page, once a second

let banner;

function tell(text) {
  clearTimeout(banner);
  byId("lost").textContent = text;
  byId("lost").hidden = !text;
  if (text) banner = setTimeout(() => { if (!state.failures) byId("lost").hidden = true; }, 8000);
}

function show(answer) {
  const { overview, you } = answer;
  document.title = `${overview.verdict === "up" ? "" : `${overview.verdict}: `}${overview.cluster} · EverMQ`;
  byId("cluster").textContent = overview.cluster;
  byId("verdict").textContent = overview.verdict;
  byId("verdict").className = `pill ${overview.verdict}`;
  byId("you").textContent = `${you.name || "nobody in particular"} ${you.may === "act" ? "may act" : "may look"}`;
  byId("served").textContent = answer.host;
  byId("reasons").hidden = overview.reasons.length === 0;
  byId("reasons").className = `reasons ${overview.verdict}`;
  byId("reasons").replaceChildren(...overview.reasons.map((reason) => node("li", {}, reason)));
  tiles(overview, answer.time_ms);
  topology(overview);
  hosts(overview, answer);
  if (answer.transitions) events(answer.transitions);
  state.after = answer.last;
}

async function look() {
  const begun = performance.now();
  try {
    const answer = await fetch(`/api/cluster?after=${state.after}`, { signal: AbortSignal.timeout(8000) });
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.error);
    show(told);
    if (state.failures) tell("");
    state.failures = 0;
    byId("live").className = "live on";
    byId("live").textContent = "live";
  } catch (error) {
    state.failures += 1;
    // What was shown last stays, and says how old it is.
    byId("live").className = "live";
    byId("live").textContent = "not live";
    if (state.failures > 1) tell(`This host does not answer: ${error.message}. What stands below is what it said last.`);
  }
  setTimeout(look, document.hidden ? 5000 : Math.max(100, PERIOD - (performance.now() - begun)));
}

look();
