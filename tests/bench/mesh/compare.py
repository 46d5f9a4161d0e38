"""The mesh beside mosquitto's bridge: compare.py DIRECTORY_OF_PROGRAMS. See `run` for what the environment says."""

import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import pairs

PROGRAMS = pathlib.Path(sys.argv[1])
WORK = os.environ.get("WORK", "flow,latency,away").split(",")
ROUNDS = int(os.environ.get("ROUNDS", "3"))
EACH = float(os.environ.get("EACH", "2"))
AWAY = float(os.environ.get("AWAY", "60"))
OUT = pathlib.Path(os.environ.get("OUT", PROGRAMS.parent / "bench-mesh.json"))
LIVE = 5_000
BROKERS = [int(count) for count in os.environ.get("BROKERS", "2,3,5").split(",")]
FLOWS = [(qos, size) for qos in (0, 1) for size in (64, 1024)]
faults = []


def load(pair, words):
    first, second = pair[:2]
    line = [PROGRAMS / "broker-bench", *words[:1], f"127.0.0.1:{first.port}", "--pid", first.pid, "--to", f"127.0.0.1:{second.port}", "--to-pid", second.pid, *words[1:]]
    done = subprocess.run([str(word) for word in line], capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{line}: {done.stderr}")
    return json.loads(done.stdout)


def flow(kind, pair, qos, size):
    result = load(pair, ["flow", "--qos", qos, "--size", size, "--seconds", EACH])
    # A subscriber that is behind may lose messages of QoS 0.
    if kind.startswith("evermq") and (result["repeated"] or result["missing"] or (qos and result["lost"])):
        faults.append(f"{kind} flow QoS {qos}: {result}")
    return result


def latency(kind, pair, rate):
    result = load(pair, ["paced", "--qos", 1, "--rate", int(rate), "--connections", 2, "--seconds", EACH])
    if kind.startswith("evermq") and result["lost"]:
        faults.append(f"{kind} latency at {rate}: {result}")
    return result


def away(pair):
    """The second broker is killed and comes back: how fast it has what it missed, while as much as before goes on."""
    first, second = pair[:2]
    second.stop(signal.SIGKILL)
    words = ["paced", f"127.0.0.1:{first.port}", "--pid", first.pid, "--qos", 1, "--rate", LIVE, "--connections", 2, "--seconds", AWAY + 5]
    live = subprocess.Popen([str(word) for word in [PROGRAMS / "broker-bench", *words]], stdout=subprocess.PIPE, text=True)
    time.sleep(AWAY)
    second.start()
    begin = None
    while begin is None:
        state = first.peer()
        if state["connected"]:
            begin = (time.monotonic(), state)
    lag, deadline = begin[1]["lag"], time.monotonic() + 60
    while state["lag"] > LIVE / 50 and time.monotonic() < deadline:
        time.sleep(0.002)
        state = first.peer()
    took = time.monotonic() - begin[0]
    rate = (state["acknowledged"] - begin[1]["acknowledged"]) / took
    live = json.loads(live.communicate(timeout=60)[0])
    while first.peer()["lag"] and time.monotonic() < deadline:
        time.sleep(0.01)
    ours, theirs = first.peer(), second.peer()
    lost, doubled = ours["lost"] + theirs["missed"] + ours["lag"], theirs["received"] - ours["acknowledged"]
    if lost or live["lost"]:
        faults.append(f"away: {ours} {theirs} {live}")
    return {"away_s": AWAY, "lag": lag, "took_s": took, "per_second": rate, "times_live": rate / LIVE, "lost": lost, "doubled": max(doubled, 0), "live_p99_us": live["p99_us"]}


def median(results, key):
    return statistics.median(result[key] for result in results)


def flows(made, count, rows, text, rates):
    for qos, size in FLOWS:
        results = {kind: [] for kind in made}
        for _ in range(ROUNDS):
            for kind, pair in made.items():
                results[kind].append(flow(kind, pair, qos, size))
        for kind, runs in results.items():
            row = {key: median(runs, key) for key in ("per_second", "cpu_us", "to_cpu_us", "lost")}
            rows.append({"work": "flow", "brokers": count, "qos": qos, "size": size, "kind": kind, **row})
            text.append(f"| {count} | QoS {qos}, {size} bytes | {kind} | {row['per_second']:,.0f} | {row['cpu_us']:.2f} | {row['to_cpu_us']:.2f} | {row['lost']:,.0f} |")
            if (qos, size) == (1, 64):
                rates[kind] = row["per_second"]


def latencies(made, rates, rows, text):
    text += ["", "| QoS 1, 64 bytes | messages/s | p50 ms | p99 ms | most ms | the generator's own most ms |", "|---|---|---|---|---|---|"]
    for kind, pair in made.items():
        for rate in [1_000, LIVE, *([rates[kind] / 2] if kind in rates else [])]:
            runs = [latency(kind, pair, rate) for _ in range(ROUNDS)]
            row = {key: median(runs, key) / 1000 for key in ("p50_us", "p99_us", "max_us", "late_us")}
            rows.append({"work": "latency", "kind": kind, "rate": rate, **row})
            text.append(f"| {kind} | {rate:,.0f} | " + " | ".join(f"{value:.2f}" for value in row.values()) + " |")


def catching_up(pair, rows, text):
    row = away(pair)
    rows.append({"work": "away", "kind": "evermq always", **row})
    text += ["", f"Away for {row['away_s']:.0f} s at {LIVE:,} messages/s, QoS 1: {row['lag']:,} messages behind, caught up in {row['took_s']:.2f} s at {row['per_second']:,.0f}/s, {row['times_live']:.1f}x live; lost {row['lost']}, doubled {row['doubled']}."]


def brokers(directory, tls, count):
    """By what they are called; `always` and `never` are when EverMQ syncs."""
    made = {f"evermq {sync}": pairs.evermq(PROGRAMS, directory / sync, tls, sync, count) for sync in ("always", "never")}
    return {**made, "mosquitto": pairs.mosquitto(directory / "mosquitto", tls, count)}


def main():
    rows, text = [], []
    if "flow" in WORK:
        text += ["| brokers | publisher at one, subscriber at another | | messages/s | sender, us of CPU each | receiver, us | lost |", "|---|---|---|---|---|---|---|"]
    after = []
    with tempfile.TemporaryDirectory(prefix="bench-mesh-") as directory:
        directory = pathlib.Path(directory)
        pairs.certificates(directory)
        for count in BROKERS:
            made, rates = brokers(directory / str(count), directory, count), {}
            try:
                if "flow" in WORK:
                    flows(made, count, rows, text, rates)
                if "latency" in WORK and count == BROKERS[0]:
                    latencies(made, rates, rows, after)
                if "away" in WORK and count == BROKERS[0]:
                    catching_up(made["evermq always"], rows, after)
            finally:
                for pair in made.values():
                    for broker in pair:
                        broker.close()
    text += after
    OUT.write_text(json.dumps(rows, indent=1))
    OUT.with_suffix(".md").write_text("\n".join(text) + "\n")
    print("\n".join(text))
    for fault in faults:
        print(f"FAULT {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
