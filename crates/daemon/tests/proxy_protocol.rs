//! Headers of ours, read by HAProxy (`accept-proxy`) and nginx (`proxy_protocol`). Needs both programs.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use evermq_daemon::proxy_protocol::{Header, Ssl};

const PATIENCE: Duration = Duration::from_secs(30);

/// A proxy that is killed at the end.
struct Running {
    address: SocketAddr,
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test waits for another program by the real clock")]
fn start(program: &str, address: SocketAddr, arguments: &[&str]) -> Running {
    let mut command = Command::new(program);
    let command = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    let mut running = Running { address, child };
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        assert_eq!(running.child.try_wait().unwrap(), None, "{program} has ended");
        assert!(Instant::now() < deadline, "{program} does not listen");
        std::thread::yield_now();
    }
    running
}

fn haproxy(directory: &Path) -> Running {
    let address = evermq_ports::free_address();
    let config = format!(
        "global
  maxconn 20
defaults
  mode http
  timeout connect 10s
  timeout client 10s
  timeout server 10s
frontend one
  bind {address} accept-proxy
  http-request return content-type text/plain lf-string \"%[src] %[src_port] %[dst] %[dst_port] %[fc_pp_authority] %[fc_pp_unique_id]\"
"
    );
    let file = directory.join("haproxy.cfg");
    std::fs::write(&file, config).unwrap();
    start("haproxy", address, &["-db", "-f", file.to_str().unwrap()])
}

fn nginx(directory: &Path) -> Running {
    let address = evermq_ports::free_address();
    let at = directory.display();
    let config = format!(
        "daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/error.log;
events {{ worker_connections 20; }}
http {{
  access_log off;
  client_body_temp_path {at}/1; proxy_temp_path {at}/2; fastcgi_temp_path {at}/3; uwsgi_temp_path {at}/4; scgi_temp_path {at}/5;
  server {{
    listen {address} proxy_protocol;
    return 200 \"$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port\";
  }}
}}
"
    );
    let file = directory.join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    start("nginx", address, &["-p", directory.to_str().unwrap(), "-c", file.to_str().unwrap()])
}

/// The body of the answer to a request behind `header`.
fn answer(proxy: &Running, header: &Header) -> String {
    let mut bytes = Vec::new();
    header.encode_v2(&mut bytes);
    bytes.extend_from_slice(b"GET / HTTP/1.0\r\n\r\n");
    let mut connection = TcpStream::connect(proxy.address).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    connection.write_all(&bytes).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    assert!(head.contains(" 200 "), "{head}");
    body.trim().to_owned()
}

fn headers() -> [Header; 3] {
    let ssl = Ssl {
        is_tls: true,
        shown: true,
        in_session: true,
        version: Some("TLSv1.3".into()),
        cn: Some("device-17".into()),
        dn: Some("CN=device-17,O=Plant 7,C=DE".into()),
        ..Ssl::default()
    };
    let four = Header::proxy("192.0.2.7:40000".parse().unwrap(), "192.0.2.1:8883".parse().unwrap());
    let six = Header::proxy("[2001:db8::7]:40001".parse().unwrap(), "[2001:db8::1]:8884".parse().unwrap());
    let full = Header {
        alpn: Some(Box::from(&b"mqtt"[..])),
        authority: Some("mqtt.example.org".into()),
        unique_id: Some(Box::from(&b"lb1-1234"[..])),
        ssl: Some(Box::new(ssl)),
        ..four.clone()
    };
    [four, six, full]
}

#[test]
fn haproxy_reads_ours() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = haproxy(directory.path());
    let answers = headers().map(|header| answer(&proxy, &header));
    let expected = [
        "192.0.2.7 40000 192.0.2.1 8883",
        "2001:db8::7 40001 2001:db8::1 8884",
        "192.0.2.7 40000 192.0.2.1 8883 mqtt.example.org lb1-1234",
    ];
    assert_eq!(answers, expected);
    assert!(answer(&proxy, &Header::LOCAL).starts_with("127.0.0.1 "));
    // As long as a certificate of RSA with 4096 bits: it is read past.
    let [.., mut full] = headers();
    full.ssl.as_mut().unwrap().certificate = Some(vec![0x30; 1900].into());
    assert_eq!(answer(&proxy, &full), expected[2]);
}

#[test]
fn nginx_reads_ours() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = nginx(directory.path());
    let answers = headers().map(|header| answer(&proxy, &header));
    let expected =
        ["192.0.2.7 40000 192.0.2.1 8883", "2001:db8::7 40001 2001:db8::1 8884", "192.0.2.7 40000 192.0.2.1 8883"];
    assert_eq!(answers, expected);
}
