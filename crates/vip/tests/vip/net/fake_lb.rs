//! A load balancer as `evermq-vip` sees it: a control socket with a health stream.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use evermq_daemon::health::HEALTH_BEAT;
use serde_json::json;

pub(crate) struct FakeLb {
    path: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// What it says; nothing: it is frozen.
    word: Option<&'static str>,
    alive: bool,
    listener: Option<UnixListener>,
    clients: Vec<UnixStream>,
    /// Other lbs' clients, each with the address that it has connected to.
    others: Vec<(SocketAddr, SocketAddr)>,
}

impl FakeLb {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), shared: Arc::default() }
    }

    /// Starts if need be, and is healthy.
    pub(crate) fn up(&self) {
        self.say(Some("up"));
    }

    pub(crate) fn degraded(&self) {
        self.say(Some("degraded"));
    }

    pub(crate) fn freeze(&self) {
        self.say(None);
    }

    fn say(&self, word: Option<&'static str>) {
        let mut state = self.shared.state.lock().unwrap();
        state.word = word;
        if !state.alive {
            state.alive = true;
            let listener = UnixListener::bind(&self.path).unwrap();
            state.listener = Some(listener.try_clone().unwrap());
            let shared = self.shared.clone();
            std::thread::spawn(move || {
                while let Ok((client, _)) = listener.accept() {
                    let mut state = shared.state.lock().unwrap();
                    if !state.alive {
                        return;
                    }
                    state.clients.push(client.try_clone().unwrap());
                    let shared = shared.clone();
                    std::thread::spawn(move || serve(client, &shared));
                }
            });
        }
        self.shared.changed.notify_all();
    }

    /// Says that another lb has these clients.
    pub(crate) fn knows(&self, clients: &[(SocketAddr, SocketAddr)]) {
        self.shared.state.lock().unwrap().others = clients.to_vec();
    }

    /// kill -9: every connection ends, nobody listens.
    pub(crate) fn die(&self) {
        let mut state = self.shared.state.lock().unwrap();
        if !std::mem::take(&mut state.alive) {
            return;
        }
        for client in state.clients.drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
        if let Some(listener) = state.listener.take() {
            nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&listener), nix::sys::socket::Shutdown::Both)
                .unwrap();
        }
        std::fs::remove_file(&self.path).unwrap();
        self.shared.changed.notify_all();
    }
}

fn serve(client: UnixStream, shared: &Shared) {
    let mut request = String::new();
    if BufReader::new(&client).read_line(&mut request).is_err() {
        return;
    }
    let mut state = shared.state.lock().unwrap();
    if request == "{\"request\":\"clients\"}\n" {
        return tell_others(&client, &state.others);
    }
    assert_eq!(request, "{\"request\":\"health\"}\n");
    loop {
        if let Some(word) = state.word
            && writeln!(&client, "{{\"health\":\"{word}\"}}").is_err()
        {
            return;
        }
        state = shared.changed.wait_timeout(state, HEALTH_BEAT).unwrap().0;
        if !state.alive {
            return;
        }
    }
}

fn tell_others(mut to: &UnixStream, others: &[(SocketAddr, SocketAddr)]) {
    let mut text = json!({ "rate": 5000, "peers": [{ "name": "lb1", "clients": others.len() }] }).to_string();
    for chunk in others.chunks(256) {
        let entries = chunk.iter().map(|(client, vip)| json!([client.ip(), client.port(), vip.ip(), vip.port()]));
        text += &format!("\n{}", serde_json::Value::Array(entries.collect()));
    }
    text += "\n{\"end\":true}\n";
    // One that does not listen to the end need not be told.
    let _ = to.write_all(text.as_bytes());
    let _ = to.shutdown(Shutdown::Both);
}
