//! Certificates made by openssl, once for each test program: as an operator who does not use `evermq certs` makes them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use evermq_config::TlsFiles;

/// Whom there are certificates for.
const NAMES: [&str; 6] = ["lb1", "lb2", "broker1", "broker2", "broker3", "client"];

/// Where the files are. Lives until the program ends.
pub(crate) fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<tempfile::TempDir> = OnceLock::new();
    DIRECTORY
        .get_or_init(|| {
            let directory = tempfile::Builder::new().prefix("evermq-lb-test").tempdir().unwrap();
            make_ca(directory.path(), "ca");
            make_ca(directory.path(), "other-ca");
            for name in NAMES {
                make(directory.path(), name, "ca");
            }
            make(directory.path(), "stranger", "other-ca");
            directory
        })
        .path()
}

/// One host's files.
pub(crate) fn files(name: &str) -> TlsFiles {
    TlsFiles { ca: path("ca.crt"), cert: path(&format!("{name}.crt")), key: path(&format!("{name}.key")) }
}

/// One file.
pub(crate) fn path(file: &str) -> PathBuf {
    directory().join(file)
}

fn make_ca(directory: &Path, name: &str) {
    openssl(
        directory,
        &format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name} \
             -keyout {name}.key -out {name}.crt"
        ),
    );
}

fn make(directory: &Path, name: &str, ca: &str) {
    let extensions = format!("subjectAltName=DNS:{name},IP:127.0.0.1,IP:127.0.0.2");
    std::fs::write(directory.join(format!("{name}.ext")), extensions).unwrap();
    openssl(
        directory,
        &format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ),
    );
    openssl(
        directory,
        &format!(
            "x509 -req -in {name}.csr -CA {ca}.crt -CAkey {ca}.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.crt"
        ),
    );
}

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
