//! Programs that run beside a test, and what they print.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Stdout,
    Stderr,
}

/// A program, killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<(From, String)>,
    /// All that has been read so far.
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A program that has ended by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// `evermq` with words of one line; a word may not contain a space.
pub(crate) fn evermq(line: &str) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evermq"));
    command.args(line.split_whitespace());
    Running::start(command)
}

/// Another program of the same kind.
pub(crate) fn program(line: &str) -> Running {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    Running::start(command)
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; is it installed?"));
        let (sender, lines) = channel();
        forward(child.stdout.take().expect("piped"), From::Stdout, sender.clone());
        forward(child.stderr.take().expect("piped"), From::Stderr, sender);
        let stdin = child.stdin.take();
        Self { child, stdin, lines, stdout: String::new(), stderr: String::new() }
    }

    /// Writes to the program's standard input.
    pub(crate) fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        stdin.write_all(text.as_bytes()).expect("the program reads");
    }

    /// Waits until the program prints a line that contains `text`.
    pub(crate) fn wait_for(&mut self, from: From, text: &str) -> String {
        let deadline = now() + DEADLINE;
        loop {
            match self.read(deadline) {
                Some((found, line)) if found == from && line.contains(text) => return line,
                Some(_) => {}
                None => panic!("no {text:?} on {from:?}; stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr),
            }
        }
    }

    /// Closes standard input and waits for the end.
    pub(crate) fn end(mut self) -> Ended {
        drop(self.stdin.take());
        let deadline = now() + DEADLINE;
        while self.read(deadline).is_some() {}
        assert!(now() < deadline, "does not end; stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        let status = self.child.wait().expect("a child").code().expect("ended by itself");
        Ended { status, stdout: std::mem::take(&mut self.stdout), stderr: std::mem::take(&mut self.stderr) }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", signal, &id]).status().expect("kill");
        assert!(status.success());
    }

    fn read(&mut self, deadline: Instant) -> Option<(From, String)> {
        let left = deadline.saturating_duration_since(now());
        let (from, line) = self.lines.recv_timeout(left).ok()?;
        match from {
            From::Stdout => self.stdout += &line,
            From::Stderr => self.stderr += &line,
        }
        Some((from, line))
    }
}

impl Ended {
    pub(crate) fn good(self) -> String {
        assert_eq!(self.status, 0, "{self:#?}");
        self.stdout
    }

    pub(crate) fn bad(self, status: i32) -> String {
        assert_eq!(self.status, status, "{self:#?}");
        self.stderr
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines as they come, with their newline.
fn forward(stream: impl Read + Send + 'static, from: From, lines: Sender<(From, String)>) {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            match stream.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    if lines.send((from, String::from_utf8_lossy(&line).into_owned())).is_err() {
                        return;
                    }
                }
            }
        }
    });
}

#[expect(clippy::disallowed_methods, reason = "deadlines of a test are real time")]
fn now() -> Instant {
    Instant::now()
}
