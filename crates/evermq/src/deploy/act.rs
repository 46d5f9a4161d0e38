//! What an action is, as commands of the host's shell.

use std::path::PathBuf;

use super::files::HostFile;
use super::packages::{Kind, Package};
use super::plan::{Action, Wanted};
use crate::remote::ssh::quoted;

/// A command, and what it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What it does, in words.
    pub what: String,
    /// For the shell.
    pub text: String,
    /// Its standard input.
    pub input: Vec<u8>,
}

/// Where a host keeps its package, and what there was before the last change.
pub const KEPT: &str = "/var/lib/evermq-deploy";

/// The version that is installed, as the host's package manager has it; an archive leaves it to the program.
pub const VERSION: &str = "version() {\n\
    dpkg-query -W -f '${db:Status-Abbrev} ${Version}\\n' evermq 2>/dev/null | sed -n 's/^ii *//p' | grep . || \n\
    rpm -q --qf '%{VERSION}\\n' evermq 2>/dev/null | grep -v ' ' || \n\
    /usr/bin/evermq --version 2>/dev/null | cut -d' ' -f2\n}\n";

const IS_OLD: &str = "is_old() { process=$(systemctl show --property=MainPID evermq-$1 | cut -d= -f2); [ \"${process:-0}\" != 0 ] && \
                      case $(readlink \"/proc/$process/exe\") in *' (deleted)') return 0 ;; esac; return 1; }\n";

/// The commands of an action on a host. `package` is the package's contents where it is to be sent.
#[must_use]
pub fn commands(action: &Action, wanted: &Wanted, package: &[u8]) -> Vec<Command> {
    let name = wanted.host.name.as_str();
    let one = |what: &str, text: String| vec![Command { what: what.to_owned(), text, input: Vec::new() }];
    match action {
        Action::Keep => one("keep what is there", keep(wanted)),
        Action::Install(new) => install(new, package),
        Action::Write(paths) => {
            let files: Vec<_> = wanted.files.iter().filter(|file| paths.contains(&file.path)).collect();
            vec![write(&files)]
        }
        Action::Unwrite { back, away } => one("files of before", unwrite(back, away)),
        Action::Restore => one("bring back what was there before", restore()),
        Action::Check => one("check", format!("/usr/bin/evermq check --host {name}")),
        Action::Start(programs) => {
            let units: Vec<String> = programs.iter().map(|program| format!("evermq-{program}")).collect();
            let units = units.join(" ");
            one(&format!("start {units}"), format!("systemctl enable --now {units}"))
        }
        Action::Reload => one("reload", format!("/usr/bin/evermq reload --host {name}")),
        Action::RestartBroker { drain, rate } => {
            let mut commands = Vec::new();
            if *drain {
                commands.extend(one("drain", drained(name, *rate)));
            }
            commands.extend(one("restart evermq-broker", "systemctl restart evermq-broker".to_owned()));
            commands
        }
        Action::RestartLb { always } => {
            let text = |program: &str, command: &str| {
                if *always { command.to_owned() } else { format!("{IS_OLD}if is_old {program}; then {command}; fi") }
            };
            let mut commands =
                one("hand over evermq-lb", text("lb", &format!("/usr/bin/evermq upgrade lb --host {name}")));
            if wanted.programs.contains(&"vip") {
                commands.extend(one("restart evermq-vip", text("vip", "systemctl restart evermq-vip")));
            }
            commands
        }
    }
}

/// Waits for it, but not for ever: clients that no other broker takes stay.
fn drained(name: &str, rate: Option<u32>) -> String {
    let rate = rate.map_or_else(String::new, |rate| format!(" --rate {rate}"));
    format!(
        "timeout 900 /usr/bin/evermq drain {name} --host {name} --wait{rate} || {{ status=$?; [ $status != 124 ] || \
         echo 'it still has clients after 15 minutes: let more of them go in a second with --drain-rate, or let it have \
         clients again with `evermq drain {name} --undo`' >&2; exit $status; }}"
    )
}

fn install(new: &Package, contents: &[u8]) -> Vec<Command> {
    let name = new.path.file_name().unwrap_or_default().to_string_lossy();
    let path = format!("{KEPT}/package.new/{name}");
    let send =
        format!("set -e; umask 077; rm -rf {KEPT}/package.new; mkdir -p {KEPT}/package.new; cat > {}", quoted(&path));
    let install = format!(
        "set -e; {}; rm -rf {KEPT}/package; mv {KEPT}/package.new {KEPT}/package",
        install_command(new.kind, &quoted(&path))
    );
    vec![
        Command { what: format!("send {name}"), text: send, input: contents.to_vec() },
        Command { what: format!("install {}", new.version), text: install, input: Vec::new() },
    ]
}

/// Of a file, quoted or a variable.
fn install_command(kind: Kind, file: &str) -> String {
    match kind {
        Kind::Deb => format!("DEBIAN_FRONTEND=noninteractive dpkg --force-confold --install {file}"),
        Kind::Rpm => format!("rpm --upgrade --oldpackage --replacepkgs {file}"),
        Kind::Tar => {
            format!(
                "tar --extract --gzip --no-same-owner --directory / --file {file} && /usr/lib/evermq/after-install && /usr/lib/evermq/after-upgrade"
            )
        }
    }
}

/// All of them beside their places and then into these: a program that reads one meanwhile has the old one or the new one.
fn write(files: &[&HostFile]) -> Command {
    let mut text = "set -e; umask 077\n\
                    put() { [ -d \"${2%/*}\" ] || install -d -m 0755 \"${2%/*}\"; head -c \"$1\" > \"$2.new\"; chgrp evermq \"$2.new\"; \
                    chmod \"$3\" \"$2.new\"; }\n"
        .to_owned();
    for file in files {
        let mode = if file.secret { "0640" } else { "0644" };
        text += &format!("put {} {} {mode}\n", file.contents.len(), quoted(&file.path.to_string_lossy()));
    }
    for file in files {
        let path = file.path.to_string_lossy();
        text += &format!("mv {} {}\n", quoted(&format!("{path}.new")), quoted(&path));
    }
    let what = match files {
        [file] => format!("write {}", file.path.display()),
        files => format!("write {} files", files.len()),
    };
    Command { what, text, input: files.iter().flat_map(|file| file.contents.iter().copied()).collect() }
}

/// Files alone: a directory that came back with them would have the mode of the directory that they were kept in.
fn keep(wanted: &Wanted) -> String {
    let files: Vec<String> = wanted.files.iter().map(|file| quoted(&file.path.to_string_lossy())).collect();
    format!(
        "{VERSION}set -e; umask 077; rm -rf {KEPT}/previous; mkdir -p {KEPT}/previous/root\n\
         for file in {}; do\n\
         [ -f \"$file\" ] || {{ echo \"$file\" >> {KEPT}/previous/added; continue; }}\n\
         mkdir -p \"{KEPT}/previous/root$(dirname \"$file\")\"; cp -a \"$file\" \"{KEPT}/previous/root$file\"\n\
         done\n\
         [ ! -d {KEPT}/package ] || cp -a {KEPT}/package {KEPT}/previous/package\n\
         version > {KEPT}/previous/version",
        files.join(" ")
    )
}

fn unwrite(back: &[PathBuf], away: &[PathBuf]) -> String {
    let words =
        |paths: &[PathBuf]| paths.iter().map(|path| quoted(&path.to_string_lossy())).collect::<Vec<_>>().join(" ");
    format!(
        "set -e; umask 077\nfor file in {}; do cp -a \"{KEPT}/previous/root$file\" \"$file.new\"; mv \"$file.new\" \"$file\"; done\n\
         for file in {}; do rm -f \"$file\"; done",
        words(back),
        words(away)
    )
}

fn restore() -> String {
    let kinds = [(Kind::Deb, "*.deb"), (Kind::Rpm, "*.rpm"), (Kind::Tar, "*.tar.gz")];
    let cases: Vec<String> =
        kinds.iter().map(|(kind, pattern)| format!("{pattern}) {} ;;", install_command(*kind, "\"$1\""))).collect();
    format!(
        "{VERSION}set -e; umask 077; version=$(cat {KEPT}/previous/version)\n\
         if [ \"$version\" != \"$(version)\" ]; then\n\
         set -- {KEPT}/previous/package/*\n\
         [ -f \"$1\" ] || {{ echo \"the package of version $version is not kept here; deploy it with --packages\" >&2; exit 1; }}\n\
         case $1 in {} esac\n\
         rm -rf {KEPT}/package; cp -a {KEPT}/previous/package {KEPT}/package\n\
         fi\n\
         cd {KEPT}/previous/root\n\
         find . -type f | while read -r file; do\n\
         file=${{file#.}}; mkdir -p \"$(dirname \"$file\")\"; cp -a \".$file\" \"$file.new\"; mv \"$file.new\" \"$file\"\n\
         done; cd /\n\
         [ ! -f {KEPT}/previous/added ] || while read -r file; do rm -f \"$file\"; done < {KEPT}/previous/added\n\
         rm -rf {KEPT}/previous",
        cases.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::deploy::plan::tests::wanted;

    #[test]
    fn what_was_there_comes_back_and_what_was_added_goes() {
        let directory = tempfile::tempdir().unwrap();
        let [old, new] = ["etc/old", "etc/new"].map(|name| directory.path().join(name));
        fs::create_dir(directory.path().join("etc")).unwrap();
        fs::write(&old, "before").unwrap();
        let mut wanted = wanted("0.1.0", "").remove(0);
        let file = |path: &PathBuf| HostFile { path: path.clone(), contents: b"after".to_vec(), secret: false };
        wanted.files = vec![file(&old), file(&new)];
        // As on a host, but for where it is kept.
        let run = |text: &str| {
            let text = text.replace(KEPT, directory.path().join("kept").to_str().unwrap());
            let output = std::process::Command::new("sh").args(["-c", &text]).output().unwrap();
            assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        };
        run(&keep(&wanted));
        fs::write(&old, "after").unwrap();
        fs::write(&new, "after").unwrap();
        run(&restore());
        assert_eq!(fs::read_to_string(&old).unwrap(), "before");
        assert!(!new.exists());
        assert!(!directory.path().join("kept/previous").exists(), "there is nothing more to bring back");
    }
}
