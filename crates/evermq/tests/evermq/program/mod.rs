//! Runs `evermq` and `openssl`, and makes a cluster file to run them on.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// What a program left: exit status, standard output, standard error.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn from(output: Output) -> Self {
        Self {
            status: output.status.code().expect("ended by itself"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Fails the test unless the program succeeded; gives what it printed.
    pub(crate) fn good(self) -> String {
        assert_eq!(self.status, 0, "{self:#?}");
        self.stdout
    }

    /// Fails the test unless the program ended with `status`; gives its complaint.
    pub(crate) fn bad(self, status: i32) -> String {
        assert_eq!(self.status, status, "{self:#?}");
        self.stderr
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

pub(crate) fn evermq<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ended {
    Ended::from(Command::new(env!("CARGO_BIN_EXE_evermq")).args(arguments).output().unwrap())
}

/// Runs `evermq` with these words in a directory, with nobody to answer its questions.
pub(crate) fn evermq_without_input(directory: &Path, words: &str) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evermq"));
    command.args(words.split_whitespace()).current_dir(directory).stdin(std::process::Stdio::null());
    Ended::from(command.output().unwrap())
}

/// A directory with a cluster file that names its certificates `tls/{host}.crt`.
pub(crate) struct Site {
    dir: TempDir,
}

/// Four hosts; nothing but what has no default.
pub(crate) const CLUSTER: &str = concat!(
    r#"[cluster]
name = "test"
run_dir = "run"
[vip]
address = "192.168.10.10"
[tls]
ca = "tls/ca.crt"
cert = "tls/{host}.crt"
key = "tls/{host}.key"
"#,
    include_str!("../../../../config/src/tests/hosts.toml"),
);

impl Site {
    pub(crate) fn new(cluster_file: &str) -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::write(site.path("evermq.toml"), cluster_file).unwrap();
        site
    }

    /// With an authority, the hosts' certificates, and those of two clients.
    pub(crate) fn with_certificates() -> Self {
        let site = Self::new(CLUSTER);
        site.evermq("certs init --config evermq.toml --dir tls --client client --client meter-17").good();
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Runs `evermq` with these words, in the site's directory.
    pub(crate) fn evermq(&self, words: &str) -> Ended {
        self.run(env!("CARGO_BIN_EXE_evermq"), words)
    }

    /// Runs `openssl` with these words, in the site's directory.
    pub(crate) fn openssl(&self, words: &str) -> Ended {
        self.run("openssl", words)
    }

    /// Runs a script, which ends at its first failure, in the site's directory.
    pub(crate) fn shell(&self, script: &str) -> Ended {
        Ended::from(Command::new("sh").args(["-e", "-c", script]).current_dir(self.root()).output().unwrap())
    }

    fn run(&self, program: &str, words: &str) -> Ended {
        let output = Command::new(program).args(words.split_whitespace()).current_dir(self.root()).output();
        Ended::from(output.unwrap_or_else(|error| panic!("the tests need the program {program}: {error}")))
    }

    /// Every file below the directory with its content, in order.
    pub(crate) fn snapshot(&self, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = std::fs::read_dir(self.path(name))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    }
}
