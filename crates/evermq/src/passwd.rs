//! `evermq passwd`: a broker's password file, one user at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use evermq_access::{Effort, Hash, PasswordFile, passwords};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::termios::{self, LocalFlags, SetArg};
use zeroize::Zeroizing;

use crate::command::CommandError;
use crate::output;

/// As long as a CONNECT can carry (MQTT 5.0 §3.1.3.6).
const LONGEST: usize = 65_535;
/// A new file is for the user who made it only.
const MODE: u32 = 0o600;

/// `evermq passwd`
#[derive(Debug, Args)]
#[command(
    after_help = "The password is asked for twice, without showing it, and stored as an argon2id hash. Files of \
                  mosquitto_passwd may be changed too; their other users stay as they are.\n\n\
                  A new file belongs to whoever makes it, with mode 0600: let the broker's user read it (chown evermq). One \
                  that is there keeps its owner and mode. Then have it taken: evermq reload.\n\n\
                  Exit status: 0 done; 1 failed, or no such user; 2 not a user name or password."
)]
pub struct PasswdArgs {
    /// The password file; it is made if it is not there
    file: PathBuf,
    /// The user's name
    user: String,
    /// Take the password from standard input: its first line
    #[arg(long, conflicts_with = "delete")]
    batch: bool,
    /// Remove the user
    #[arg(long)]
    delete: bool,
}

/// Why the file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum PasswdError {
    /// No user can be called that.
    #[error("\"{0}\" cannot be a user's name: {1}")]
    Name(String, &'static str),
    /// What came is no password.
    #[error("{0}")]
    Password(&'static str),
    /// It could not be asked for.
    #[error("cannot ask for the password: {0}; with --batch it comes from standard input")]
    Ask(#[source] io::Error),
    /// There is nobody to remove.
    #[error("there is no user \"{user}\" in {file}", file = file.display())]
    NoUser {
        /// The name.
        user: String,
        /// The file.
        file: PathBuf,
    },
    /// The file has mistakes.
    #[error("{0}")]
    File(evermq_config::Report),
    /// Reading or writing failed.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl PasswdError {
    /// Whether the command line or the password is wrong.
    pub(crate) const fn is_usage(&self) -> bool {
        matches!(self, Self::Name(..) | Self::Password(_))
    }
}

/// Sets a user's password, or removes the user.
///
/// # Errors
/// Neither was done; the file is as it was.
pub fn run(args: &PasswdArgs) -> Result<ExitCode, CommandError> {
    change(args)?;
    let done = if args.delete { "removed from" } else { "set in" };
    output::print(&format!("{}: {done} {}; `evermq reload` puts it in force\n", args.user, args.file.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn change(args: &PasswdArgs) -> Result<(), PasswdError> {
    passwords::check_name(&args.user).map_err(|error| PasswdError::Name(args.user.clone(), error.text()))?;
    // Asked for before anything is locked: a person takes her time.
    let hash = if args.delete { None } else { Some(Hash::make(&password(args)?)) };
    let directory = match args.file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |source| PasswdError::Io { what, path, source }
    };
    // Two of these at once must not undo each other's change. The file itself is replaced, so its directory is locked.
    let held = File::open(directory).map_err(failed("open", directory))?;
    let held = Flock::lock(held, FlockArg::LockExclusive).map_err(|(_, error)| PasswdError::Io {
        what: "lock",
        path: directory.to_owned(),
        source: error.into(),
    })?;
    let text = match fs::read_to_string(&args.file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !args.delete => String::new(),
        Err(error) => return Err(failed("read", &args.file)(error)),
    };
    // A user with the empty password is what this may be called for.
    PasswordFile::parse(&args.file, text.as_bytes(), Effort::None).map_err(PasswdError::File)?;
    let changed = match hash {
        Some(hash) => passwords::with_user(&text, &args.user, &hash),
        None => passwords::without_user(&text, &args.user)
            .ok_or_else(|| PasswdError::NoUser { user: args.user.clone(), file: args.file.clone() })?,
    };
    replace(&args.file, changed.as_bytes()).map_err(failed("write", &args.file))?;
    held.sync_all().map_err(failed("write", directory))
}

fn password(args: &PasswdArgs) -> Result<Zeroizing<Vec<u8>>, PasswdError> {
    let password = if args.batch {
        first_line().map_err(PasswdError::Ask)?
    } else {
        let first = ask(&format!("Password of {}: ", args.user)).map_err(PasswdError::Ask)?;
        let again = ask("Again: ").map_err(PasswdError::Ask)?;
        if first != again {
            return Err(PasswdError::Password("the passwords differ: nothing was changed"));
        }
        first
    };
    match password.len() {
        0 => Err(PasswdError::Password("an empty password keeps nobody out: nothing was changed")),
        1..=LONGEST => Ok(password),
        _ => Err(PasswdError::Password("a password has at most 65535 bytes: MQTT cannot carry more")),
    }
}

fn first_line() -> io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::new());
    io::stdin().lock().take(LONGEST as u64 + 2).read_until(b'\n', &mut line)?;
    cut_end(&mut line);
    Ok(line)
}

/// Asks at the terminal, whatever standard input and output are.
pub(crate) fn ask(question: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    // Before the question, so that nothing that is typed at once is shown.
    let quiet = Quiet::new(terminal.try_clone()?)?;
    terminal.write_all(question.as_bytes())?;
    let mut line = Zeroizing::new(Vec::new());
    let read = io::BufReader::new(&terminal).take(LONGEST as u64 + 2).read_until(b'\n', &mut line);
    drop(quiet);
    read?;
    cut_end(&mut line);
    Ok(line)
}

fn cut_end(line: &mut Vec<u8>) {
    while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        line.pop();
    }
}

/// A terminal that does not show what is typed, until this is dropped.
struct Quiet {
    terminal: File,
    before: termios::Termios,
}

impl Quiet {
    fn new(terminal: File) -> io::Result<Self> {
        let before = termios::tcgetattr(&terminal)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        quiet.local_flags.insert(LocalFlags::ECHONL);
        termios::tcsetattr(&terminal, SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // There is nobody to tell where the terminal is gone.
        let _ = termios::tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

/// Puts `bytes` in the place of the file as a whole, for its owner, with its mode.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    // Beside what a symbolic link leads to, so that the link stays.
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = file.with_file_name(name);
    let result = write(&new, &file, bytes).and_then(|()| fs::rename(&new, &file));
    if result.is_err() {
        let _ = fs::remove_file(&new);
    }
    result
}

fn write(new: &Path, old: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut out = OpenOptions::new().write(true).create_new(true).mode(MODE).open(new)?;
    out.write_all(bytes)?;
    if let Ok(before) = fs::metadata(old) {
        let now = out.metadata()?;
        if (now.uid(), now.gid()) != (before.uid(), before.gid()) {
            std::os::unix::fs::fchown(&out, Some(before.uid()), Some(before.gid()))?;
        }
        out.set_permissions(fs::Permissions::from_mode(before.mode() & 0o777))?;
    }
    out.sync_all()
}
