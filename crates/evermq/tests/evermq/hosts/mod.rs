//! `evermq deploy`, `rollback` and `check --hosts` on hosts that are directories: a program called `ssh` runs commands in them, with
//! programs beside it that stand for systemctl, dpkg and their like and write down what they were asked for.

mod deploy;
mod survey;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::program::{Ended, Site};

/// A site whose hosts are directories.
pub(crate) struct Hosts {
    pub(crate) site: Site,
}

/// Runs the command of an `ssh` in the host's directory: absolute paths of the host lead into it.
const SSH: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do case $1 in
    -o | -l) shift 2 ;; -O) exit 0 ;; -G) echo "hostname $2"; exit 0 ;; -*) shift ;; *) break ;;
esac; done
host=$1; shift; [ "$1" != -- ] || shift
root=$HOSTS/$host
[ -d "$root" ] || { echo "ssh: connect to host $host port 22: No route to host" >&2; exit 255; }
# What a command does wrong must not be done to this machine: all but the hosts' directories is read-only.
[ "$(/usr/bin/id -u)" = 0 ] || alone=--map-root-user
[ -n "$INSIDE" ] || INSIDE=1 exec unshare $alone --mount sh -c \
    'mount --bind "$HOSTS" "$HOSTS" && mount -o remount,bind,ro / && exec "$@"' sh "$0" "$host" -- "$*"
export root host
into="s#/etc/evermq#$root/etc/evermq#g; s#/var/lib/evermq-deploy#$root/deploy#g; s#/usr/bin/evermq#$root/usr/bin/evermq#g"
case $* in
    'sh -s') sed "$into" | sh -s | sed "s#$root##g" ;;
    *) sh -c "$(printf '%s' "$*" | sed "$into")" ;;
esac
"#;

/// What the hosts' programs are.
const PROGRAMS: [(&str, &str); 14] = [
    (
        "systemctl",
        r#"#!/bin/sh
state() { [ -e "$root/units/$1" ] && echo "$2" || echo "$3"; }
case $1 in
    --version) echo "systemd 252 (252)" ;;
    show) echo MainPID=0 ;;
    is-active) [ "$2" != --quiet ] || exit 1; state "$2.active" active inactive ;;
    is-enabled) state "$2.enabled" enabled disabled ;;
    *) echo "$host systemctl $*" >> "$HOSTS/log"
       [ ! -e "$root/fails-$1" ] || { echo "Job for $2 failed." >&2; exit 1; }
       mkdir -p "$root/units"; [ "$1" != enable ] || { shift 2; for unit; do : > "$root/units/$unit.active"; : > "$root/units/$unit.enabled"; done; } ;;
esac
"#,
    ),
    (
        "dpkg",
        r#"#!/bin/sh
for file; do :; done
version=$(cat "$file"); echo "$host dpkg $version" >> "$HOSTS/log"
[ ! -e "$root/fails-dpkg" ] || { echo "dpkg: error processing archive" >&2; exit 1; }
mkdir -p "$root/usr/bin" "$root/etc/evermq/tls"
cat > "$root/usr/bin/evermq" <<END
#!/bin/sh
[ "\$1" != --version ] || { echo "evermq $version"; exit 0; }
echo "$host evermq \$*" >> "$HOSTS/log"
[ ! -e "$root/hangs-evermq-\$1" ] || exit 124
[ ! -e "$root/fails-evermq-\$1" ] || { echo "\$1 says no" >&2; exit 2; }
[ "\$1" != reload ] || echo "evermq-broker: the file is in force, but for what needs a restart: broker.listen"
END
chmod 0755 "$root/usr/bin/evermq"
"#,
    ),
    ("ip", "#!/bin/sh\n[ \"$1\" != neighbour ] || exit 0\ncat \"$root/addresses\" 2>/dev/null || :\n"),
    ("id", "#!/bin/sh\n[ -e \"$root/no-root\" ] && echo 1000 || echo 0\n"),
    ("chgrp", "#!/bin/sh\n:\n"),
    ("hostname", "#!/bin/sh\necho \"$host.plant\"\n"),
    ("ss", "#!/bin/sh\ncat \"$root/listeners\" 2>/dev/null || :\n"),
    // What runs on this machine, and what its firewall and package manager say, is not a host's: others use the machine meanwhile.
    ("ps", "#!/bin/sh\n:\n"),
    ("nft", "#!/bin/sh\n:\n"),
    ("iptables-save", "#!/bin/sh\n:\n"),
    ("firewall-cmd", "#!/bin/sh\nexit 252\n"),
    ("getent", "#!/bin/sh\nexit 2\n"),
    ("ping", "#!/bin/sh\nexit 1\n"),
    ("dpkg-query", "#!/bin/sh\nexit 1\n"),
];

impl Hosts {
    /// Bare hosts, and packages of two versions.
    pub(crate) fn new() -> Self {
        let hosts = Self { site: Site::with_certificates() };
        fs::create_dir_all(hosts.site.path("hosts/bin")).unwrap();
        for (name, text) in PROGRAMS.iter().copied().chain([("ssh", SSH)]) {
            let path = hosts.site.path("hosts/bin").join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for name in ["lb1", "lb2", "broker1", "broker2"] {
            fs::create_dir_all(hosts.of(name)).unwrap();
        }
        hosts.packages("old", "0.1.0");
        hosts.packages("new", "0.2.0");
        hosts
    }

    /// A directory of packages that hold nothing but their version.
    fn packages(&self, directory: &str, version: &str) {
        fs::create_dir_all(self.site.path(directory)).unwrap();
        for machine in ["amd64", "arm64"] {
            fs::write(self.site.path(directory).join(format!("evermq_{version}_{machine}.deb")), version).unwrap();
        }
    }

    /// A host's directory.
    pub(crate) fn of(&self, host: &str) -> PathBuf {
        self.site.path("hosts").join(host)
    }

    /// Runs `evermq` with these words, where `ssh` is ours.
    pub(crate) fn evermq(&self, words: &str) -> Ended {
        let path = format!("{}:{}", self.site.path("hosts/bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_evermq"));
        command.args(words.split_whitespace()).current_dir(self.site.root());
        // Its sockets' directory is called by its process: not beside those of other tests.
        command.env("PATH", path).env("HOSTS", self.site.path("hosts")).env("XDG_RUNTIME_DIR", self.site.root());
        Ended::from(command.output().unwrap())
    }

    /// What the hosts were asked for since the last look, in order.
    pub(crate) fn log(&self) -> Vec<String> {
        let path = self.site.path("hosts/log");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        text.lines().map(str::to_owned).collect()
    }

    /// Lets lb1 have the VIP.
    pub(crate) fn hold_vip(&self) {
        fs::write(self.of("lb1").join("addresses"), "2: eth0 inet 192.168.10.10/32 scope global eth0\n").unwrap();
    }
}
