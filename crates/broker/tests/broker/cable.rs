//! Stands between two brokers, and can be pulled out.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One direction: connections that one broker makes to another one.
pub(crate) struct Cable {
    pub(crate) address: SocketAddr,
    plug: Arc<Mutex<Plug>>,
}

#[derive(Default)]
struct Plug {
    is_out: bool,
    sockets: Vec<TcpStream>,
}

impl Cable {
    /// Leads to `target`. Its threads end with their connections, and the last one with the test's process.
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let plug = Arc::new(Mutex::new(Plug::default()));
        let shared = Arc::clone(&plug);
        std::thread::spawn(move || {
            loop {
                let Ok((client, _)) = listener.accept() else { continue };
                // Under the lock, so that none gets through that is being pulled out.
                let mut plug = shared.lock().unwrap();
                let Some(server) = (!plug.is_out).then(|| TcpStream::connect(target).ok()).flatten() else { continue };
                plug.sockets.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                let (client_reader, server_reader) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || copy(client_reader, server));
                std::thread::spawn(move || copy(server_reader, client));
            }
        });
        Self { address, plug }
    }

    pub(crate) fn pull_out(&self) {
        let mut plug = self.plug.lock().unwrap();
        plug.is_out = true;
        for socket in plug.sockets.drain(..) {
            // One that has ended already is as good as cut.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn put_in(&self) {
        self.plug.lock().unwrap().is_out = false;
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(length @ 1..) if to.write_all(&buffer[..length]).is_ok() => {}
            Ok(_) | Err(_) => break,
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
