use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::*;

struct Served {
    address: SocketAddr,
    shutdown: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn served() -> Served {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(serve(listener, Arc::new(|| "up 1\n".to_owned()), token)).unwrap();
    });
    Served { address, shutdown, thread: Some(thread) }
}

impl Served {
    fn ask(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // A server that has refused may have closed before everything was written.
        let _ = stream.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }
}

#[test]
fn the_text_is_at_metrics_and_nowhere_else() {
    let served = served();
    let answer = served.ask("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nup 1\n"), "{answer}");
    let elsewhere = served.ask("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(elsewhere.starts_with("HTTP/1.1 404"), "{elsewhere}");
    let posted = served.ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert!(posted.starts_with("HTTP/1.1 405") && posted.contains("allow: GET, HEAD"), "{posted}");
}

#[test]
fn nonsense_and_endless_heads_are_refused() {
    let served = served();
    let nonsense = served.ask("\u{1}\u{2}\r\n\r\n");
    assert!(nonsense.starts_with("HTTP/1.1 400"), "{nonsense}");
    let endless = served.ask(&format!("GET /metrics HTTP/1.1\r\nX: {}", "y".repeat(2 * MAX_HEAD)));
    assert!(endless.is_empty() || endless.starts_with("HTTP/1.1 431"), "{endless}");
}

#[test]
fn more_connections_than_the_bound_wait_their_turn() {
    let served = served();
    let idle: Vec<_> = (0..MAX_CONNECTIONS).map(|_| TcpStream::connect(served.address).unwrap()).collect();
    let mut waiting = TcpStream::connect(served.address).unwrap();
    waiting.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    waiting.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(waiting.read_exact(&mut [0; 1]).is_err(), "answered beyond the bound");
    drop(idle);
    waiting.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("up 1\n"), "{answer}");
}
