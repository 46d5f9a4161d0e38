//! The demo's side of its clients: starts them in the client host and reads what they say.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};

use super::clients::ClientsArgs;
use super::events::Event;
use crate::lab::error::LabError;
use crate::lab::interrupt::Interrupt;
use crate::lab::registry::Lab;
use crate::lab::{clock, commands, plan};

/// The clients' process.
pub(super) struct Load {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    buffer: Vec<u8>,
    log: std::path::PathBuf,
}

impl Load {
    /// Starts them.
    pub(super) fn start(lab: &Lab, arguments: &ClientsArgs) -> Result<Self, LabError> {
        let log = lab.host_directory(plan::CLIENT).join("logs/demo.log");
        let failed = LabError::io("cannot start the demo's clients");
        let start = || -> io::Result<_> {
            let program = std::env::current_exe()?;
            let parent = lab.directory().parent().unwrap_or(lab.directory());
            let mut child = Command::new(&program)
                .args(["lab", "--name", lab.name(), "--dir"])
                .arg(parent)
                .args(["exec", plan::CLIENT, "--"])
                .arg(&program)
                .args(["lab", "__clients", "--rate", &arguments.rate.to_string()])
                .args(["--probe-interval", &arguments.probe_interval.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(File::create(&log)?)
                .spawn()?;
            let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
            let (input, output) = (child.stdin.take(), child.stdout.take().ok_or_else(gone)?);
            Ok((child, input, output))
        };
        let (child, input, output) = start().map_err(failed)?;
        Ok(Self { child, input, output, buffer: Vec::new(), log })
    }

    /// The next event; `None` at the deadline.
    pub(super) fn next(&mut self, deadline: Duration, interrupt: &Interrupt) -> Result<Option<Event>, LabError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let event = serde_json::from_slice(&line).map_err(io::Error::from);
                return event.map(Some).map_err(LabError::io("the demo's clients said something else than an event"));
            }
            let Some(left) = deadline.checked_sub(clock::monotonic()) else { return Ok(None) };
            let mut waited = [
                PollFd::new(self.output.as_fd(), PollFlags::POLLIN),
                PollFd::new(interrupt.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waited, clock::poll_timeout(Some(left))) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(LabError::errno("cannot wait for the demo's clients")(errno)),
            }
            let [readable, interrupted] = waited.map(|descriptor| descriptor.any().unwrap_or(true));
            if interrupted {
                return Err(LabError::Interrupted);
            }
            if readable {
                let mut chunk = [0; 4096];
                let read = self.output.read(&mut chunk).map_err(LabError::io("cannot read from the demo's clients"))?;
                if read == 0 {
                    let said = commands::tail(&self.log, 5);
                    return Err(LabError::NotReady(format!("the demo's clients have ended: {}", said.trim_end())));
                }
                self.buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
            }
        }
    }

    /// Asks for the end: no new messages, and an account of all.
    pub(super) fn finish(&mut self) -> Result<(), LabError> {
        let Some(input) = &mut self.input else { return Ok(()) };
        input.write_all(b".").map_err(LabError::io("the demo's clients have ended"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // They end when their standard input does; in the way of a demo's end they may not be.
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
