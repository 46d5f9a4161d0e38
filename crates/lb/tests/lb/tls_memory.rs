//! What one idle connection holds where TLS ends at the lb.

use crate::harness::alone;
use crate::pki::{Pki, Wire};
use evermq_lb::tls::{ServerSide, Session as _, Terminator};
use rustls::version::{TLS12, TLS13};

const COUNT: usize = 200;
/// What the whole lb may hold for one connection is 5000; the rest is for what stands around TLS.
const MOST: usize = 4900;

/// All that malloc has given out, to the cryptographic library's C code as well: with one arena, the figures are whole.
fn held() -> usize {
    // SAFETY: reads figures, takes no argument.
    unsafe { nix::libc::mallinfo2() }.uordblks
}

/// A connection as a worker keeps it, after a little traffic.
fn idle(pki: &Pki, terminator: &Terminator, version: &'static rustls::SupportedProtocolVersion) -> Box<ServerSide> {
    let mut wire = Wire::new(&pki.client_of(Some("client"), &[version]), "lb1", terminator);
    wire.handshake().unwrap();
    std::io::Write::write_all(&mut wire.client.writer(), b"CONNECT").unwrap();
    wire.pump().unwrap();
    wire.server.send(b"CONNACK", &mut wire.out).unwrap();
    wire.pump().unwrap();
    Box::new(wire.server)
}

#[expect(clippy::print_stdout, reason = "the figure is what the test is for")]
fn report(line: &str) {
    println!("{line}");
}

#[test]
fn an_idle_mutual_connection_is_small() {
    if !alone("tls_memory::an_idle_mutual_connection_is_small", &[("MALLOC_ARENA_MAX", "1")]) {
        return;
    }
    let pki = Pki::new();
    let terminator = pki.terminator("");
    for version in [&TLS12, &TLS13] {
        // What is made once is made now.
        drop(idle(&pki, &terminator, version));
        let mut connections = Vec::with_capacity(COUNT);
        let before = held();
        for _ in 0..COUNT {
            connections.push(idle(&pki, &terminator, version));
        }
        let each = (held() - before) / COUNT;
        let inline = size_of::<ServerSide>();
        report(&format!("{:?}: {each} bytes for one idle mutual connection, {inline} in one piece", version.version));
        assert!((inline..MOST).contains(&each), "{:?}: {each} bytes", version.version);
    }
}
