#!/usr/bin/env python3
"""What 2,000 clients notice of a restart, kill -9, hang and upgrade of each program, of EverMQ and of Debian's haproxy, keepalived
and mosquitto on the same hosts: tests/hosts/README.md.

    tests/hosts/figures.py                     all of them, one after the other
    tests/hosts/figures.py debian mosquitto    these
    tests/hosts/figures.py --only kill         those of their cases with that in their names
    tests/hosts/figures.py --json              the figures as JSON in the place of the table
"""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
# A tree of its own: it has the programs that EverMQ is compared with.
os.environ.setdefault("EVERMQ_HOSTS_DIR", "target/hosts-figures")

import lab  # noqa: E402

lab.PACKAGES += ",haproxy,keepalived,mosquitto"

import debian  # noqa: E402
from drills import home, install, restarted  # noqa: E402
from stack import BROKERS, LBS, LOAD, UNITS, Stack  # noqa: E402

CLIENTS = 2000
# Seconds that a case is looked at; a hang as long as the watchdog of the unit takes, and where there is none, no shorter.
WINDOW = 12
HANG = {"evermq-broker": 40}
LONG_HANG = 20


def say(text):
    print(text, file=sys.stderr, flush=True)


class EverMQ:
    """EverMQ on all four hosts."""

    def __init__(self, stack, packages):
        self.stack, self.packages, self.installed = stack, packages, 0

    def start(self):
        pass

    def stop(self):
        pass

    def settle(self):
        self.stack.all_well()
        lab.wait_for("a message through the VIP", self.stack.passes)

    def mend(self):
        pass

    def upgrade(self, host):
        """Another version; dpkg does not mind which is the higher one."""
        self.installed = 1 - self.installed
        self.stack.install(self.packages[self.installed], host)

    def cases(self):
        for program, unit in UNITS.items():
            window = HANG.get(unit, LONG_HANG)
            yield f"{unit}: restart", WINDOW, lambda: restart(home(self.stack, program), unit)
            yield f"{unit}: kill -9", WINDOW, lambda: kill(home(self.stack, program), unit)
            if program == "vip":
                yield f"{unit}: kill -9, its guard lives", WINDOW, lambda: kill_main(home(self.stack, program), unit)
            yield f"{unit}: hang", window, lambda: hang(home(self.stack, program), unit, window)
        yield "evermq-lb, evermq-vip: upgrade of the package, holder of the VIP", WINDOW, lambda: self.upgrade(self.stack.holder())
        yield "evermq-lb, evermq-vip: upgrade of the package, the other host", WINDOW, lambda: self.upgrade(self.stack.standby())
        yield "evermq-broker: upgrade of the package, drain at 200 a second, restart", 20, lambda: self.upgrade_broker(self.stack.lab["broker1"])

    def upgrade_broker(self, host):
        self.upgrade(host)
        host.do("evermq", "drain", host.name, "--wait", "--rate", 200)
        return restart(host, "evermq-broker")


class Debian(debian.Debian):
    """haproxy and keepalived, evermq-broker behind them."""

    def cases(self):
        for unit in ("keepalived", "haproxy"):
            yield f"{unit}: restart", WINDOW, lambda: restart(self.stack.holder(), unit)
            yield f"{unit}: reload", WINDOW, lambda: reload(self.stack.holder(), unit)
            yield f"{unit}: kill -9", WINDOW, lambda: kill(self.stack.holder(), unit)
            yield f"{unit}: kill -9 of the process that serves", WINDOW, lambda: kill_child(self.stack.holder(), unit)
            yield f"{unit}: hang", LONG_HANG, lambda: hang_child(self.stack.holder(), unit)
            yield f"{unit}: upgrade of the package", WINDOW, lambda: self.stack.install(debian.package(unit), self.stack.holder())


class Mosquitto(debian.Mosquitto):
    """mosquitto behind haproxy and keepalived."""

    def cases(self):
        host = self.stack.lab["broker1"]
        yield "mosquitto: restart", WINDOW, lambda: restart(host, "mosquitto")
        yield "mosquitto: kill -9", WINDOW, lambda: kill(host, "mosquitto")
        yield "mosquitto: hang", LONG_HANG, lambda: host.do("systemctl", "kill", "--signal=STOP", "mosquitto")
        yield "mosquitto: upgrade of the package", WINDOW, lambda: self.stack.install(debian.package("mosquitto"), host)


SIDES = {
    "evermq": EverMQ,
    "debian": lambda stack, _packages: Debian(stack, 1),
    "debian-100ms": lambda stack, _packages: Debian(stack, 0.1),
    "mosquitto": lambda stack, _packages: Mosquitto(stack, 1),
}


# What is done to a unit; gives the seconds until another process serves, where that is to be told.


def restart(host, unit):
    begin = time.monotonic()
    host.do("systemctl", "restart", unit)
    return time.monotonic() - begin


def reload(host, unit):
    host.do("systemctl", "reload", unit)


def kill(host, unit):
    """Every process of the unit at the same moment."""
    process = host.main_process(unit)
    host.do("systemctl", "kill", "--kill-who=all", "--signal=KILL", unit)
    return replaced(host, unit, process, WINDOW)


def kill_main(host, unit):
    process = host.main_process(unit)
    host.do("kill", "-9", process)
    return replaced(host, unit, process, WINDOW)


def kill_child(host, unit):
    host.do("kill", "-9", serving(host, unit))


def hang(host, unit, seconds):
    process = host.main_process(unit)
    host.do("kill", "-STOP", process)
    return restarted(host, unit, process, seconds)


def hang_child(host, unit):
    host.do("kill", "-STOP", serving(host, unit))


def serving(host, unit):
    """The process that does the work of a main process which only watches it."""
    return host.do("pgrep", "--parent", host.main_process(unit)).split()[0]


def replaced(host, unit, process, seconds):
    try:
        return restarted(host, unit, process, seconds)
    except TimeoutError:
        return None


# Measuring


def measure(side, seconds, act):
    """One case, from a settled cluster back to one."""
    stack = side.stack
    side.settle()
    holder = stack.holder().name
    hold, probe = stack.hold(CLIENTS, seconds + 2), stack.probe(seconds)
    took = act()
    probed, held = probe.result(), hold.result()
    moved = len(stack.holders()) != 1 or stack.holders()[0] != holder
    side.mend()
    side.settle()
    outages = held["outages"]
    back = [outage["back_ms"] - outage["closed_ms"] for outage in outages if outage["back_ms"] is not None]
    return {
        "dropped": len({outage["client"] for outage in outages}),
        "longest_outage_ms": max(back, default=0.0),
        "not_back": held["unserved_at_end"],
        "longest_unserved_ms": held["longest_unserved_ms"],
        "attempts": probed["attempts"],
        "refused": probed["refused"],
        "failed_otherwise": probed["failed"] - probed["refused"],
        "longest_gap_ms": max(probed["longest_gap_ms"], probed["silent_at_end_ms"]),
        "worst_connect_ms": probed["worst_connect_ms"],
        "vip_moved": moved,
        "replaced_after_s": took if isinstance(took, float) else None,
    }


HEAD = ("", f"dropped of {CLIENTS:,}", "longest without service, ms", "refused", "failed otherwise", "longest gap, ms", "worst connect, ms", "VIP moved", "again after, s")


def row(name, figures):
    unserved = f"{figures['longest_unserved_ms']:,.0f}"
    if figures["not_back"]:
        unserved += f" ({figures['not_back']:,} at the end)"
    again = figures["replaced_after_s"]
    return (name, f"{figures['dropped']:,}", unserved, f"{figures['refused']:,} of {figures['attempts']:,}", f"{figures['failed_otherwise']:,}",
            f"{figures['longest_gap_ms']:,.0f}", f"{figures['worst_connect_ms']:,.0f}", "yes" if figures["vip_moved"] else "no",
            "" if again is None else f"{again:.1f}")


def line(cells):
    return "| " + " | ".join(cells) + " |"


def built_packages():
    """The package, and the same of a higher version."""
    found = sorted(pathlib.Path("target/packages").glob("evermq_*.deb"))
    packages = [next((path for path in found if ("+next" in path.name) == later), None) for later in (False, True)]
    if None in packages or not LOAD.exists():
        sys.exit("build first, as make bench-hosts does")
    return packages


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("stacks", nargs="*", help=", ".join(SIDES))
    parser.add_argument("--only", default="")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.stacks if name not in SIDES]
    if unknown:
        sys.exit(f"no such stack: {' '.join(unknown)}; there are {' '.join(SIDES)}")
    lab.check_machine()
    packages = built_packages()
    # Standard output is for the table.
    with contextlib.redirect_stdout(sys.stderr), lab.Lab(LBS + BROKERS) as hosts:
        debian.silence(hosts)
        stack = Stack(hosts)
        install(stack, packages[0])
        results = {name: run(name, SIDES[name](stack, packages), arguments.only) for name in arguments.stacks or SIDES}
    if arguments.json:
        json.dump({"clients": CLIENTS, "machine": f"{os.cpu_count()} cores, Linux {os.uname().release}", "results": results}, sys.stdout, indent=1)
        return
    for name, cases in results.items():
        print(f"\n{name}\n\n" + line(HEAD) + "\n" + line(["---"] * len(HEAD)))
        for case, figures in cases.items():
            print(line(row(case, figures)))


def run(name, side, only):
    results = {}
    side.start()
    for case, seconds, act in side.cases():
        if only in case:
            results[case] = measure(side, seconds, act)
            say(f"{name}: {line(row(case, results[case]))}")
    side.stop()
    return results


if __name__ == "__main__":
    main()
