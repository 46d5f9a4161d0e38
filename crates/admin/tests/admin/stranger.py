"""Somebody at an endpoint, by Python's own TLS and HTTP: stranger.py WHAT DIRECTORY ADDRESS PORT [CERTIFICATE [NUMBER]]

Prints what became of it as JSON. Where it says "open" first, it goes on when its standard input ends.
"""
import http.client
import json
import select
import socket
import ssl
import sys
import threading
import time

WHAT, DIRECTORY, ADDRESS, PORT = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
CERTIFICATE = sys.argv[5] if len(sys.argv) > 5 else "-"
NUMBER = int(sys.argv[6]) if len(sys.argv) > 6 else 1
PATIENCE = 60


def context():
    made = ssl.create_default_context(cafile=f"{DIRECTORY}/ca.crt")
    if CERTIFICATE != "-":
        made.load_cert_chain(f"{DIRECTORY}/{CERTIFICATE}.crt", f"{DIRECTORY}/{CERTIFICATE}.key")
    return made


def connect():
    return socket.create_connection((ADDRESS, PORT), timeout=PATIENCE)


def secure():
    return context().wrap_socket(connect(), server_hostname="lb1")


def hello():
    """The first bytes of a handshake, as OpenSSL writes them."""
    out = ssl.MemoryBIO()
    client = context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="lb1")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def say(**what):
    print(json.dumps(what), flush=True)


def hold():
    print("open", flush=True)
    sys.stdin.read()


def is_open(connection):
    """Whether the other side still has it, whatever it has sent."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
        return False
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False


def settled(held):
    """How many are open once that does not change any more: what the other side closes takes a moment to arrive."""
    before, now = None, sum(map(is_open, held))
    for _ in range(20):
        if before == now:
            break
        time.sleep(0.25)
        before, now = now, sum(map(is_open, held))
    return now


def answer(connection):
    """All that comes until the other side closes; an end without a farewell is one too."""
    connection.settimeout(PATIENCE)
    text = b""
    try:
        while piece := connection.recv(65536):
            text += piece
    except OSError:
        pass
    return text.decode("latin-1")


def status(text):
    return int(text.split(" ")[1]) if text.startswith("HTTP/1.1 ") else None


def slow():
    """Handshakes that do not go on: nothing, half a hello, a whole one, a byte now and then."""
    first = hello()
    beginnings = [b"", first[: len(first) // 2], first, first[:1]]
    held = []
    for index in range(NUMBER):
        connection = connect()
        try:
            connection.sendall(beginnings[index % 4])
        except OSError:
            pass
        held.append(connection)
    hold()
    began = time.monotonic()
    still = sum(map(is_open, held))
    while any(map(is_open, held)) and time.monotonic() - began < PATIENCE:
        for connection in held:
            try:
                connection.send(b"\x00")
            except OSError:
                pass
        time.sleep(0.1)
    say(still=still, at_last=sum(map(is_open, held)))


def crowd():
    """Connections with TLS done, at once; asks nothing on them, or one thing on each with a certificate."""
    held, lock = [], threading.Lock()

    def one():
        try:
            connection = secure()
            if CERTIFICATE != "-":
                connection.sendall(b"GET /icon.svg HTTP/1.1\r\nhost: lb1\r\n\r\n")
                if status(connection.recv(65536).decode("latin-1")) != 200:
                    return
            with lock:
                held.append(connection)
        except OSError:
            pass

    threads = [threading.Thread(target=one, daemon=True) for _ in range(NUMBER)]
    for thread in threads:
        thread.start()
    # Those for whom there is no place do not get so far.
    deadline = time.monotonic() + 5
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    with lock:
        inside = len(held)
        say(inside=inside, still=settled(held))
    hold()


def ask():
    """GET / with Python's HTTP: the status, and how long it took."""
    began = time.monotonic()
    try:
        client = http.client.HTTPSConnection("lb1", PORT, timeout=PATIENCE, context=context())
        client.sock = secure()
        client.request("GET", "/icon.svg")
        got = client.getresponse()
        got.read()
        say(status=got.status, closes=got.will_close, took=time.monotonic() - began)
    except OSError as error:
        say(status=None, error=str(error), took=time.monotonic() - began)


def post():
    """POST /api/drain: what the page does, and what a page from elsewhere or a device would."""
    found = {}
    body = json.dumps({"broker": "broker1", "state": "drain"})
    kinds = {
        "own": {"Origin": "https://lb1"},
        "elsewhere": {"Origin": "https://evil.example"},
        "same name, plain": {"Origin": "http://lb1"},
        "another port": {"Origin": "https://lb1:9999"},
        "null": {"Origin": "null"},
        "form": {"Content-Type": "application/x-www-form-urlencoded"},
    }
    for kind, headers in kinds.items():
        client = http.client.HTTPSConnection("lb1", PORT, timeout=PATIENCE, context=context())
        client.sock = secure()
        client.request("POST", "/api/drain", body, {"Host": "lb1", "Content-Type": "application/json", **headers})
        found[kind] = client.getresponse().status
        client.close()
    say(**found)


def request():
    """Requests that are too much: a head that never ends, bodies that are too large or do not come."""
    found = {}
    head = b"POST /api/drain HTTP/1.1\r\nhost: lb1\r\ncontent-type: application/json\r\n"
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    for kind, first, again, most in [
        ("one header", b"GET / HTTP/1.1\r\nhost: lb1\r\nx: ", b"a" * 4096, 4096),
        ("many headers", b"GET / HTTP/1.1\r\nhost: lb1\r\n", b"x: y\r\n" * 1000, 4096),
        ("path", b"GET /", b"a" * 4096, 4096),
        ("length", head + b"content-length: 1000000000\r\n\r\n", b" " * 4096, 4096),
        ("chunks", head + b"transfer-encoding: chunked\r\n\r\n", chunk, 4096),
        ("no body", head + b"content-length: 10\r\n\r\n", b"", 0),
    ]:
        connection = secure()
        began = time.monotonic()
        connection.sendall(first)
        connection.setblocking(False)
        sent = 0
        # Until it has an answer, or the end.
        try:
            while sent < most:
                if select.select([connection], [], [], 0)[0]:
                    break
                try:
                    connection.send(again)
                    sent += 1
                except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    select.select([connection], [connection], [], 1)
        except OSError:
            pass
        text = answer(connection)
        found[kind] = {"status": status(text), "sent": sent * len(again), "took": time.monotonic() - began}
    say(**found)


def trickle():
    """A head of which a byte comes now and then."""
    connection = secure()
    began = time.monotonic()
    connection.sendall(b"GET / HTTP/1.1\r\nhost: lb1\r\nx: ")
    connection.setblocking(False)
    while is_open(connection) and time.monotonic() - began < PATIENCE:
        try:
            connection.send(b"a")
        except OSError:
            break
        time.sleep(0.5)
    say(took=time.monotonic() - began)


def plain():
    """HTTP without TLS, and bytes that are nothing."""
    found = {}
    for kind, text in [("http", b"GET / HTTP/1.1\r\nhost: lb1\r\n\r\n"), ("mqtt", b"\x10\x0c\x00\x04MQTT\x04\x02\x00<\x00\x00"), ("nothing", bytes(range(256)) * 16)]:
        connection = connect()
        try:
            connection.sendall(text)
        except OSError:
            pass
        found[kind] = "HTTP" in answer(connection)
    say(**found)


globals()[WHAT]()
