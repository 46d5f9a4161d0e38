"""evermq-broker and its peers in turn under the same load: CPU, rates, times, memory, and whether anything was lost. See `run`."""

import datetime
import json
import os
import pathlib
import signal
import statistics
import sys
import tempfile
import time

import brokers

BIN = pathlib.Path(sys.argv[1]).resolve()
LOAD = BIN / "broker-bench"
ROUNDS = int(os.environ.get("ROUNDS", "3"))
DURABLE_ROUNDS = int(os.environ.get("DURABLE_ROUNDS", ROUNDS))
EACH = float(os.environ.get("EACH", "1"))
ONLY = [name for name in os.environ.get("WORK", "").split(",") if name]
# Share of the counts of the large works: 1 for a million.
SCALE = float(os.environ.get("SCALE", "1"))
OUT = pathlib.Path(os.environ.get("OUT", BIN.parent / "bench-broker.json"))

FLOWS = {
    "1:1 QoS 0": (1, 1, 0),
    "1:1 QoS 1": (1, 1, 1),
    "1:100 QoS 0": (1, 100, 0),
    "1:100 QoS 1": (1, 100, 1),
    "50:1 QoS 1": (50, 1, 1),
}
# The best of FlashMQ and rumqttd as it was measured before, for where they are not at hand.
BEFORE = {"1:1 QoS 0": 881e3, "1:1 QoS 1": 561e3, "1:100 QoS 0": 3.6e6, "1:100 QoS 1": 2.3e6, "50:1 QoS 1": 1.07e6}


class Bench:
    """What was measured: results[work][row][broker] is a list, one dictionary for each round."""

    def __init__(self, directory, programs):
        self.directory, self.programs, self.results, self.number = directory, programs, {}, 0
        self.tls = directory / "tls"
        self.tls.mkdir()
        brokers.certificates(self.tls)

    def start(self, name, **settings):
        self.number += 1
        return brokers.KINDS[name](self.programs[name], self.directory / f"{self.number}-{name}", self.tls, **settings)

    def note(self, work, row, name, result):
        self.results.setdefault(work, {}).setdefault(row, {}).setdefault(name, []).append(result)
        said = result.get("error") or {key: round(value, 1) if isinstance(value, float) else value for key, value in result.items() if value is not None}
        print(f"{datetime.datetime.now():%H:%M:%S} {work} | {row} | {name}: {said}", flush=True)

    def fresh(self, work, row, names, words, tls=False, settings=None):
        """One run each with a program that has done nothing else."""
        for name in names:
            try:
                broker = self.start(name, **(settings or {}))
            except RuntimeError as error:
                self.note(work, row, name, {"error": str(error)})
                continue
            try:
                self.note(work, row, name, brokers.load(LOAD, broker, *words, tls=tls))
            finally:
                broker.close()

    def rounds(self, work, rows, names, tls=False):
        """ROUNDS runs each, in turn, of programs that go on running."""
        running = {}
        try:
            for name in names:
                try:
                    running[name] = self.start(name)
                except RuntimeError as error:
                    print(error, flush=True)
            for _ in range(ROUNDS):
                for row, words in rows.items():
                    for name, broker in running.items():
                        if broker.process.poll() is not None:
                            self.note(work, row, name, {"error": f"it has ended with status {broker.process.poll()}"})
                            continue
                        self.note(work, row, name, brokers.load(LOAD, broker, *words, tls=tls))
                        time.sleep(0.1)
        finally:
            for broker in running.values():
                broker.close()


def flow_words(publishers, subscribers, qos):
    return ["flow", "--publishers", publishers, "--subscribers", subscribers, "--qos", qos, "--seconds", EACH]


def flow(bench):
    bench.rounds("flow", {row: flow_words(*shape) for row, shape in FLOWS.items()}, bench.programs)


def tls_flow(bench):
    bench.rounds("tls-flow", {row: flow_words(*shape) for row, shape in FLOWS.items()}, bench.programs, tls=True)


def latency(bench):
    bench.rounds("latency", {"20,000/s QoS 1, 100 connections": ["paced", "--seconds", max(EACH, 2)]}, bench.programs)


def handshakes(bench):
    bench.rounds("handshakes", {"mutual TLS and CONNECT": ["handshakes", "--count", int(1200 * max(SCALE, 0.1))]}, bench.programs, tls=True)


def durable(bench):
    """Persistent subscribers, here or away, by QoS, publishers and what the store promises; mosquitto and FlashMQ write now and then only."""
    variants = [("evermq", "always"), ("evermq", "interval"), ("evermq", "never")]
    variants += [(name, None) for name in bench.programs if name != "evermq" and brokers.KINDS[name].persistent]
    for _ in range(DURABLE_ROUNDS):
        for name, sync in variants:
            column = f"{name} {sync}" if sync else name
            for qos in (1, 2):
                # QoS 2 of the peers is not what is asked.
                if qos == 2 and sync is None:
                    continue
                broker = bench.start(name, deep=True, **({"sync": sync} if sync else {}))
                try:
                    for publishers in (1, 10, 100):
                        for where in ("online", "offline"):
                            words = ["flow", "--publishers", publishers, "--qos", qos, "--seconds", EACH / 2, "--persistent"]
                            before, begin = broker.syncs(), time.monotonic()
                            result = brokers.load(LOAD, broker, *words, *(["--offline"] if where == "offline" else []))
                            after = broker.syncs()
                            if before is not None and after is not None:
                                result["syncs_per_second"] = (after - before) / (time.monotonic() - begin)
                            bench.note("durable", f"QoS {qos}, {publishers} publishers, subscriber {where}", column, result)
                finally:
                    broker.close()


def idle(bench):
    count = int(10_000 * SCALE)
    bench.fresh("idle", "plain", bench.programs, ["idle", "--count", count])
    bench.fresh("idle", "mutual TLS", bench.programs, ["idle", "--count", count], tls=True)


def idle_many(bench):
    """As many as the machine's ports and files let one client address have, for ours alone."""
    count = min(int(100_000 * SCALE), brokers.FILES - 1000, 27_000)
    bench.fresh("idle-many", f"{count:,} plain", ["evermq"], ["idle", "--count", count])


def slow(bench):
    bench.fresh("slow", "400 MB past a reader that stopped", bench.programs, ["slow", "--megabytes", max(int(400 * SCALE), 20)])


def retained(bench):
    side = max(int(round(100 * SCALE ** (1 / 3))), 10)
    bench.fresh("retained", f"{side ** 3:,} messages", [name for name in bench.programs if name in ("evermq", "mosquitto", "flashmq")], ["retained", "--side", side])


def subscriptions(bench):
    clients = max(int(1000 * SCALE), 20)
    words = ["subscriptions", "--clients", clients, "--seconds", EACH]
    bench.fresh("subscriptions", f"{clients * 1000:,} subscriptions", [name for name in bench.programs if name in ("evermq", "mosquitto", "flashmq")], words)


def restart(bench):
    each = max(int(10_000 * SCALE), 100)
    for name, how in (("evermq", signal.SIGKILL), ("mosquitto", signal.SIGTERM), ("flashmq", signal.SIGTERM)):
        if name not in bench.programs:
            continue
        row = f"{100 * each:,} messages in 100 sessions"
        broker = bench.start(name, deep=True)
        try:
            filled = brokers.load(LOAD, broker, "fill", "--each", each)
            if "error" in filled:
                bench.note("restart", row, name, filled)
                continue
            time.sleep(0.5)
            broker.stop(how)
            # mosquitto and FlashMQ write their state when they are asked to stop.
            disk = broker.disk()
            seconds = broker.start(patience=120)
            time.sleep(0.5)
            memory = broker.resident()
            drained = [brokers.load(LOAD, broker, "drain", "--session", session, "--each", each) for session in (0, 99)]
            bench.note("restart", row, name, {
                "stopped_by": how.name, "ready_seconds": seconds, "resident_after": memory, "disk": disk, "filled_per_second": filled["per_second"], "bytes_each": filled["bytes_each"],
                "lost": sum(one.get("lost", each) for one in drained), "out_of_order": sum(one.get("out_of_order", 0) for one in drained),
            })
        finally:
            broker.close()


# In this order: what is short and matters most first.
WORKS = {work.__name__.replace("_", "-"): work for work in (flow, tls_flow, latency, durable, handshakes, idle, idle_many, slow, restart, retained, subscriptions)}


# Of these the worst counts.
WORST = {"lost", "repeated", "out_of_order"}


def median(results, key):
    values = [result[key] for result in results if result.get(key) is not None]
    return (max if key in WORST else statistics.median)(values) if values else None


# work: (title, [(key, unit, scale, digits)])
FIGURES = {
    "flow": ("deliveries, plain", [("per_cpu_second", "k/s of CPU", 1e-3, 0), ("per_second", "k/s", 1e-3, 0), ("memory", "MB", 1e-6, 0), ("lost", "lost", 1, 0)]),
    "tls-flow": ("deliveries, mutual TLS", [("per_cpu_second", "k/s of CPU", 1e-3, 0), ("per_second", "k/s", 1e-3, 0), ("memory", "MB", 1e-6, 0), ("lost", "lost", 1, 0)]),
    "latency": ("latency", [("p50_us", "p50 us", 1, 0), ("p99_us", "p99 us", 1, 0), ("cpu_us", "CPU us each", 1, 1)]),
    "durable": ("durable", [("acknowledged_per_second", "acknowledged/s", 1, 0), ("of_never", "% of never", 100, 0), ("syncs_per_second", "syncs/s", 1, 0), ("memory", "MB", 1e-6, 0), ("lost", "lost", 1, 0)]),
    "handshakes": ("handshakes", [("per_cpu_second", "/s of CPU", 1, 0)]),
    "idle": ("idle connection", [("bytes_each", "bytes", 1, 0)]),
    "idle-many": ("idle connections", [("bytes_each", "bytes", 1, 0)]),
    "slow": ("slow reader", [("more_bytes", "MB more", 1e-6, 1), ("seconds", "s", 1, 2)]),
    "retained": ("retained", [("bytes_each", "bytes each", 1, 0), ("published_per_second", "k published/s", 1e-3, 0), ("first_level_ms", "ms for retained/+/1/1", 1, 1), ("middle_level_ms", "ms for retained/1/+/1", 1, 1), ("subtree_ms", "ms for retained/1/#", 1, 1)]),
    "subscriptions": ("subscriptions", [("bytes_each", "bytes each", 1, 0), ("taken_per_second", "k taken/s", 1e-3, 0), ("past_per_cpu_second", "k deliveries/s of CPU past them", 1e-3, 0)]),
    "restart": ("restart", [("ready_seconds", "s to ready", 1, 2), ("resident_after", "MB", 1e-6, 0), ("disk", "MB on disk", 1e-6, 0), ("lost", "lost", 1, 0)]),
}


def columns_of(work, programs):
    if work == "durable":
        return ["evermq always", "evermq interval", "evermq never", *(name for name in programs if name != "evermq" and brokers.KINDS[name].persistent)]
    return list(programs)


def compare_with_never(rows):
    """What `always` and `interval` reach of `never`, by the medians."""
    for by_name in rows.values():
        never = median(by_name.get("evermq never", []), "acknowledged_per_second")
        for name in ("evermq always", "evermq interval"):
            reached = median(by_name.get(name, []), "acknowledged_per_second")
            if never and reached:
                for result in by_name[name]:
                    result["of_never"] = reached / never


def faults(results):
    """Where something was lost, repeated or failed."""
    found = []
    for work, rows in results.items():
        for row, by_name in rows.items():
            for name, rounds in by_name.items():
                for result in rounds:
                    past = result.get("past") or {}
                    wrong = {key: result.get(key) or past.get(key) for key in ("error", "failed", "lost", "missing", "repeated", "out_of_order") if result.get(key) or past.get(key)}
                    if wrong:
                        found.append((name, f"{work} | {row}: {wrong}"))
    return found


def report(bench, machine, versions):
    durable_rounds = "" if DURABLE_ROUNDS == ROUNDS else f", durable of {DURABLE_ROUNDS}"
    lines = [f"{machine}; medians of {ROUNDS} rounds{durable_rounds} (idle, slow, retained, subscriptions, restart: one run of a fresh program).", "; ".join(versions.values()), ""]
    compare_with_never(bench.results.get("durable", {}))
    for work, (title, figures) in FIGURES.items():
        if work not in bench.results:
            continue
        names = columns_of(work, bench.programs)
        lines += [f"| {title} | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for row, by_name in bench.results[work].items():
            for rounds in by_name.values():
                for result in rounds:
                    for key, value in (result.get("past") or {}).items():
                        result[f"past_{key}"] = value
            for number, (key, unit, scale, digits) in enumerate(figures):
                values = [median(by_name.get(name, []), key) for name in names]
                if all(value is None for value in values):
                    continue
                cells = ["" if value is None else f"{value * scale:,.{digits}f}" for value in values]
                lines.append(f"| {row if number == 0 else ''}: {unit} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += [line for line, _ in verdicts(bench)]
    wrong = faults(bench.results)
    lines += ["", "Nothing was lost, repeated or refused." if not wrong else "Lost, repeated or failed:"]
    lines += [f"- {name}: {text}" for name, text in wrong]
    return "\n".join(lines)


def verdicts(bench):
    found = []

    def say(text, value, bound, reached):
        found.append((f"{'reached' if reached else 'SHORT  '}  {text}: {value} (to reach: {bound})", reached))

    def value(work, row, name, key):
        return median(bench.results.get(work, {}).get(row, {}).get(name, []), key)

    for row in FLOWS:
        ours = value("flow", row, "evermq", "per_cpu_second")
        if ours:
            best = max([value("flow", row, name, "per_cpu_second") or 0 for name in bench.programs if name != "evermq"] + [0 if {"flashmq", "rumqttd"} <= set(bench.programs) else BEFORE[row]])
            say(f"{row}, deliveries per second of CPU to the best peer's", f"{ours / best:.2f}", 1, ours >= best)
            theirs = value("flow", row, "mosquitto", "per_cpu_second")
            if theirs:
                say(f"{row}, to mosquitto's", f"{ours / theirs:.1f}", 3, ours >= 3 * theirs)
        ours, theirs = (value("tls-flow", row, name, "per_cpu_second") for name in ("evermq", "mosquitto"))
        if ours and theirs:
            say(f"{row} over mutual TLS, to mosquitto's", f"{ours / theirs:.1f}", 2, ours >= 2 * theirs)
    for row, by_name in bench.results.get("latency", {}).items():
        for key in ("p50_us", "p99_us"):
            ours, theirs = (median(by_name.get(name, []), key) for name in ("evermq", "mosquitto"))
            if ours and theirs:
                say(f"latency {key}, us", f"{ours:,.0f} beside {theirs:,.0f}", "at most mosquitto's", ours <= theirs)
    for row, by_name in bench.results.get("durable", {}).items():
        if "100 publishers" in row:
            always, never = (median(by_name.get(f"evermq {sync}", []), "acknowledged_per_second") for sync in ("always", "never"))
            if always and never:
                say(f"{row}: always to never", f"{always / never:.2f}", 0.3, always >= 0.3 * never)
    ours, theirs = (value("handshakes", "mutual TLS and CONNECT", name, "per_cpu_second") for name in ("evermq", "mosquitto"))
    if ours and theirs:
        say("handshakes per second of CPU, to mosquitto's", f"{ours / theirs:.1f}", 2, ours >= 2 * theirs)
    for row, bound in (("plain", 2000), ("mutual TLS", 10_000)):
        ours = value("idle", row, "evermq", "bytes_each")
        if ours:
            say(f"idle connection, {row}, bytes", f"{ours:,.0f}", f"{bound:,}", ours <= bound)
    for row, by_name in bench.results.get("slow", {}).items():
        ours = median(by_name.get("evermq", []), "more_bytes")
        if ours is not None:
            say("slow reader, bytes more", f"{ours:,.0f}", "20,000,000", ours <= 20e6)
    return found


def main():
    if unknown := [name for name in ONLY if name not in WORKS]:
        raise SystemExit(f"{','.join(unknown)}: WORK is one or more of {','.join(WORKS)}")
    programs = brokers.programs(BIN)
    versions = brokers.versions(programs)
    machine = f"{os.cpu_count()} cores, Linux {os.uname().release}, {datetime.date.today()}, {brokers.FILES:,} open files"
    # Ended from outside it stops its brokers all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    begin, took = time.monotonic(), {}
    # Beside the build, not in a file system in memory: what is synced must reach a disk.
    with tempfile.TemporaryDirectory(prefix="bench-broker-", dir=BIN) as name:
        bench = Bench(pathlib.Path(name), programs)
        for work in ONLY or WORKS:
            since = time.monotonic()
            WORKS[work](bench)
            took[work] = round(time.monotonic() - since)
            # After each, so that a run that is cut short has shown something.
            text = report(bench, machine, versions)
            targets = [line for line, _ in verdicts(bench)]
            OUT.write_text(json.dumps({"machine": machine, "versions": versions, "rounds": ROUNDS, "durable_rounds": DURABLE_ROUNDS, "seconds": took, "results": bench.results, "targets": targets}, indent=1) + "\n")
            OUT.with_suffix(".md").write_text(text + "\n")
    print("\n" + text)
    print(f"\n{OUT}, {OUT.with_suffix('.md')}; {time.monotonic() - begin:.0f} s: {took}")
    # What a peer loses is its own affair.
    if any(name.startswith("evermq") for name, _ in faults(bench.results)):
        raise SystemExit("evermq-broker lost, repeated or refused something")


main()
