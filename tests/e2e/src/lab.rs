//! One lab for one test: up, faults, commands in its hosts, down when dropped.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::wait;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A running lab.
pub struct Lab {
    name: String,
    directory: tempfile::TempDir,
    programs: PathBuf,
}

/// Where the programs under test are: `EVERMQ_BIN_DIR`, or beside the test's own build.
///
/// # Panics
/// There is no `evermq` there.
#[must_use]
pub fn programs() -> PathBuf {
    let directory = std::env::var_os("EVERMQ_BIN_DIR").map_or_else(
        || {
            let me = std::env::current_exe().expect("a test knows its own path");
            let deps = me.parent().expect("a file has a directory");
            if deps.ends_with("deps") {
                deps.parent().expect("deps is in a directory").to_owned()
            } else {
                deps.to_owned()
            }
        },
        PathBuf::from,
    );
    for program in ["evermq", "evermq-vip", "evermq-lb", "evermq-broker", "evermq-load"] {
        assert!(
            directory.join(program).exists(),
            "{} has no {program}; run `cargo build --bins` first (add --release for a release test)",
            directory.display()
        );
    }
    directory
}

/// Settings of tests. With the default interval, a machine whose processes all stand still for a tenth of a second moves the
/// VIP, and then a test meets another host than it asked for. A broker that came up after the lb had looked for it would get
/// few clients for a while, where tests want each broker to have its share.
pub const STEADY: [&str; 3] = ["vip.advert_interval=200ms", "vip.quorum_lease=1s", "lb.slow_start=0s"];

impl Lab {
    /// Brings a lab up that is [`STEADY`], and waits until it serves.
    ///
    /// # Panics
    /// It does not come up; the text is the lab's own.
    #[must_use]
    pub fn up() -> Self {
        Self::up_with(&STEADY).unwrap_or_else(|said| panic!("evermq lab up: {said}"))
    }

    /// A lab with these settings of the cluster file, such as `vip.preempt=true`, and the defaults elsewhere.
    ///
    /// # Errors
    /// What the lab says where it does not come up.
    ///
    /// # Panics
    /// `evermq` cannot be run.
    pub fn up_with(settings: &[&str]) -> Result<Self, String> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let lab = Self {
            name: format!("e2e-{}-{number}", std::process::id()),
            directory: tempfile::tempdir().expect("a temporary directory"),
            programs: programs(),
        };
        let mut command = lab.lab(["up"]);
        command.args(settings.iter().flat_map(|setting| ["--set", setting]));
        let output = command.output().expect("evermq can be run");
        if output.status.success() { Ok(lab) } else { Err(text(&output)) }
    }

    /// The directory of the programs under test.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// The lab's CA and every certificate.
    #[must_use]
    pub fn pki(&self) -> PathBuf {
        self.directory.path().join(&self.name).join("pki")
    }

    /// `evermq lab VERB ...` for this lab, not yet started.
    fn lab(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut arguments = arguments.into_iter();
        let verb = arguments.next().expect("a verb");
        let mut command = Command::new(self.programs.join("evermq"));
        command.arg("lab").arg(verb).args(["--name", &self.name, "--dir"]).arg(self.directory.path()).args(arguments);
        command
    }

    /// `evermq lab VERB ...` for this lab, which must succeed.
    ///
    /// # Panics
    /// It fails.
    pub fn must(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
        let mut command = self.lab(arguments);
        let output = command.output().expect("evermq can be run");
        assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output));
        output
    }

    /// A command in a host, not yet started; standard input is empty, output is piped.
    #[must_use]
    pub fn command(&self, host: &str, command: &[&str]) -> Command {
        let mut made = self.lab(["exec", host, "--"]);
        made.args(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        made
    }

    /// Runs a command in a host to its end.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn exec(&self, host: &str, command: &[&str]) -> Output {
        self.command(host, command).output().expect("evermq can be run")
    }

    /// Starts a command in a host.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn spawn(&self, host: &str, command: &[&str]) -> Running {
        Running(Some(self.command(host, command).spawn().expect("evermq can be run")))
    }

    /// Cable out and every process dead.
    pub fn kill(&self, host: &str) {
        self.must(["kill", host]);
    }

    /// Cable in, dead programs started again.
    pub fn heal(&self, host: &str) {
        self.must(["heal", host]);
    }

    /// Sends a signal to one program of a host.
    pub fn signal(&self, host: &str, program: &str, signal: &str) {
        self.must(["kill-program", host, program, "--signal", signal]);
    }

    /// What a program's control socket says, if it answers.
    #[must_use]
    pub fn state(&self, host: &str, program: &str) -> Option<Value> {
        let output = self.exec(host, &[&self.path_of("evermq"), "status", "--programs", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        status.get("programs")?.as_array()?.iter().find(|one| one["program"] == program)?.get("state").cloned()
    }

    /// Which lb host has the VIP on its interface, of those that can be asked.
    #[must_use]
    pub fn holders(&self) -> Vec<&'static str> {
        let holds = |host: &&str| {
            let output = self.exec(host, &["ip", "-4", "-o", "address", "show", "to", crate::VIP]);
            output.status.success() && !output.stdout.is_empty()
        };
        ["lb1", "lb2"].into_iter().filter(holds).collect()
    }

    /// The one lb host that has the VIP, once there is exactly one.
    ///
    /// # Panics
    /// There are none or two for fifteen seconds.
    #[must_use]
    pub fn holder(&self) -> &'static str {
        wait::until("one lb host holds the VIP", Duration::from_secs(15), || match self.holders()[..] {
            [one] => Some(one),
            _ => None,
        })
        .0
    }

    /// The other lb host.
    #[must_use]
    pub fn other_lb(host: &str) -> &'static str {
        if host == "lb1" { "lb2" } else { "lb1" }
    }

    /// Waits until every program of every host says that it is well.
    pub fn wait_healthy(&self) {
        wait::until("the whole lab is well", Duration::from_secs(45), || {
            let output = self.lab(["status", "--json"]).output().expect("evermq can be run");
            let status: Value = serde_json::from_slice(&output.stdout).ok()?;
            let programs = status["hosts"].as_array()?.iter().filter_map(|host| host["programs"].as_array()).flatten();
            let is_well = |state: &Value| state.is_object() && state.get("health").is_none_or(|health| health == "up");
            programs.map(|program| &program["state"]).all(is_well).then_some(())
        });
    }

    /// The path of a program under test, as a string.
    #[must_use]
    pub fn path_of(&self, program: &str) -> String {
        self.programs.join(program).display().to_string()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for host in ["lb1", "lb2", "broker1", "broker2"] {
                let logs = self.lab(["logs", host]).output().map(|output| text(&output)).unwrap_or_default();
                let tail: Vec<_> = logs.lines().rev().take(25).collect();
                #[expect(clippy::print_stderr, reason = "the log of a failed test")]
                for line in tail.into_iter().rev() {
                    eprintln!("{host}: {line}");
                }
            }
        }
        let output = self.lab(["down"]).output();
        if !std::thread::panicking() {
            let output = output.expect("evermq can be run");
            assert!(output.status.success(), "lab down: {}", text(&output));
        }
    }
}

/// A command that runs in a host; killed when dropped.
pub struct Running(Option<Child>);

impl Running {
    /// The process.
    ///
    /// # Panics
    /// Never: it is there until it is finished.
    pub fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("not yet finished")
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Its output cannot be read.
    #[must_use]
    pub fn finish(mut self) -> Output {
        let child = self.0.take().expect("finished once");
        child.wait_with_output().expect("output can be read")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Both outputs of a command as text.
#[must_use]
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
