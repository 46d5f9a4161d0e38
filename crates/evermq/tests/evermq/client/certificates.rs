//! Certificates made with openssl, as a site without EverMQ would.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A directory with `ca.crt`, and with `other-ca.crt`, which has signed nothing but `other.crt`.
pub(crate) struct Certificates {
    dir: TempDir,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let made = Self { dir: TempDir::new().expect("a directory") };
        made.authority("ca");
        made.authority("other-ca");
        made.certificate("server", "ca", "subjectAltName=DNS:localhost", 30);
        made.certificate("client", "ca", "extendedKeyUsage=clientAuth", 30);
        made.certificate("other", "other-ca", "extendedKeyUsage=clientAuth", 30);
        made
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Settings of a mosquitto listener that demands client certificates.
    pub(crate) fn mosquitto(&self, server: &str) -> String {
        let [ca, cert, key] =
            ["ca.crt".to_owned(), format!("{server}.crt"), format!("{server}.key")].map(|name| self.path(&name));
        format!("allow_anonymous true\ncafile {ca}\ncertfile {cert}\nkeyfile {key}\nrequire_certificate true\n")
    }

    /// Flags that present a client certificate.
    pub(crate) fn flags(&self, ca: &str, client: &str) -> String {
        let [ca, cert, key] =
            [format!("{ca}.crt"), format!("{client}.crt"), format!("{client}.key")].map(|name| self.path(&name));
        format!("--cafile {ca} --cert {cert} --key {key}")
    }

    /// A certificate valid from yesterday for `days` days.
    pub(crate) fn certificate(&self, name: &str, ca: &str, extension: &str, days: i32) {
        let request = "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        self.openssl(&format!("{request} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        std::fs::write(self.path("extensions"), extension).expect("a file");
        let sign = format!("x509 -req -in {name}.csr -CA {ca}.crt -CAkey {ca}.key -CAcreateserial -days {days}");
        self.openssl(&format!("{sign} -extfile extensions -out {name}.crt"));
    }

    fn authority(&self, name: &str) {
        let request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30";
        self.openssl(&format!("{request} -subj /CN={name} -keyout {name}.key -out {name}.crt"));
    }

    fn openssl(&self, line: &str) {
        let output = Command::new("openssl").args(line.split(' ')).current_dir(self.dir.path()).output();
        let output = output.expect("the tests need the program openssl");
        let path: &Path = self.dir.path();
        assert!(output.status.success(), "{line} in {path:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
