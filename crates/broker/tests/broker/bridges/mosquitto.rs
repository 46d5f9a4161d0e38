//! A mosquitto broker that runs beside the test.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::running::PATIENCE;

pub(crate) struct Mosquitto {
    child: Option<Child>,
    file: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Mosquitto {
    /// Serves anybody over plain TCP; `more` is added to its configuration.
    pub(crate) fn start(directory: &std::path::Path, name: &str, more: &str) -> Self {
        let mosquitto = Self::stopped(directory, name, more);
        mosquitto.started()
    }

    /// The same, not yet started.
    pub(crate) fn stopped(directory: &std::path::Path, name: &str, more: &str) -> Self {
        let address = evermq_ports::free_address();
        Self::at(
            address,
            directory,
            name,
            &format!("listener {} {}\nallow_anonymous true\n{more}", address.port(), address.ip()),
        )
    }

    /// Serves at `address`, as `conf` says.
    pub(crate) fn at(address: SocketAddr, directory: &std::path::Path, name: &str, conf: &str) -> Self {
        let file = directory.join(format!("{name}.conf"));
        std::fs::write(&file, format!("user root\n{conf}")).unwrap();
        Self { child: None, file, address }
    }

    pub(crate) fn started(mut self) -> Self {
        self.start_again();
        self
    }

    /// Until it serves.
    pub(crate) fn start_again(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.file.with_extension("log")).unwrap();
        // Debian has it where only root looks.
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("mosquitto");
        command.env("PATH", path).arg("-v").arg("-c").arg(&self.file).stdout(Stdio::null()).stderr(log);
        let child = self.child.insert(command.spawn().expect("mosquitto is needed: apt-get install mosquitto"));
        let deadline = evermq_broker::connection::clock() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "mosquitto ended: {}", read(&self.file));
            assert!(evermq_broker::connection::clock() < deadline, "mosquitto does not serve: {}", read(&self.file));
            std::thread::yield_now();
        }
    }

    /// Until its log has `text` so often.
    pub(crate) fn wait_for_log(&self, text: &str, times: usize) {
        let deadline = evermq_broker::connection::clock() + PATIENCE;
        while read(&self.file).matches(text).count() < times {
            let is_late = evermq_broker::connection::clock() >= deadline;
            assert!(!is_late, "not {times} times {text}: {}", read(&self.file));
            std::thread::yield_now();
        }
    }

    /// SIGTERM, so that it writes down what it is to remember.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
            assert!(child.wait().unwrap().success());
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Its log so far.
fn read(file: &std::path::Path) -> String {
    std::fs::read_to_string(file.with_extension("log")).unwrap_or_default()
}
