//! Stands between a dialer and a broker, and cuts connections in the middle of whatever they carry.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A relay whose connections can be cut.
pub struct Relay {
    sockets: Arc<Mutex<Vec<TcpStream>>>,
    cuts: Mutex<usize>,
}

impl Relay {
    /// Passes what comes in at `listener` on to `target`. Its threads end with their connections, and the last one with the
    /// test's process.
    pub fn start(listener: TcpListener, target: SocketAddr) -> Self {
        listener.set_nonblocking(false).unwrap();
        let sockets = Arc::new(Mutex::new(Vec::new()));
        let open = Arc::clone(&sockets);
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let Ok(server) = TcpStream::connect(target) else { continue };
                open.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                let (client_reader, server_reader) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || copy(client_reader, server));
                std::thread::spawn(move || copy(server_reader, client));
            }
        });
        Self { sockets, cuts: Mutex::new(0) }
    }

    /// Cuts every connection at once.
    pub fn cut(&self) {
        for socket in self.sockets.lock().unwrap().drain(..) {
            // One that has ended already is as good as cut.
            let _ = socket.shutdown(Shutdown::Both);
        }
        *self.cuts.lock().unwrap() += 1;
    }

    pub fn cuts(&self) -> usize {
        *self.cuts.lock().unwrap()
    }
}

/// In odd pieces, so that a cut falls into the middle of frames and TLS records.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 1371];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) if to.write_all(&buffer[..length]).is_err() => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
