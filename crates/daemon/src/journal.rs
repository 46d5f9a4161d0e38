//! Log lines as journald takes them natively (systemd's JOURNAL_NATIVE_PROTOCOL): each field can be searched for by itself.
//!
//! | field | is |
//! |---|---|
//! | `MESSAGE` | the whole line as text, its fields too: what `journalctl` shows |
//! | `PRIORITY`, `SYSLOG_IDENTIFIER` | the level, the program's name |
//! | `EVERMQ_TARGET` | the part of the program that says it |
//! | `EVERMQ_` and a field's name, such as `EVERMQ_BACKEND` | that field; of a span with its name: `EVERMQ_CLIENT_ID` |
//!
//! ```text
//!   NAME=value\n                                 a value of one line
//!   NAME\n LENGTH(8, little endian) value \n     any other
//! ```
//!
//! Nothing waits for the journal here. What its socket does not take, because it restarts, is full or the line is too long, goes
//! to standard error, which is the journal's too and keeps its place while journald restarts: such a line has its priority and
//! no fields.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields as _;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Where journald takes lines.
pub(crate) const SOCKET: &str = "/run/systemd/journal/socket";
/// Says which file the journal has put behind this process's standard output or error, as DEVICE:INODE (systemd.exec(5)).
const VARIABLE: &str = "JOURNAL_STREAM";
/// What names of fields begin with.
const PREFIX: &str = "EVERMQ_";
/// The longest name that journald takes.
const LONGEST_NAME: usize = 64;

/// Whether standard error goes to the journal. A program that was started by another one may have the variable, and a file
/// behind its standard error.
pub(crate) fn has_standard_error() -> bool {
    let stream = std::env::var(VARIABLE).ok();
    stream.is_some_and(|stream| is(&stream, std::io::stderr()))
}

fn is(stream: &str, file: impl AsFd) -> bool {
    let file = nix::sys::stat::fstat(file);
    file.is_ok_and(|file| stream == format!("{}:{}", file.st_dev, file.st_ino))
}

/// Sends lines to the journal.
pub(crate) struct Journal<E = fn(&str)> {
    socket: Option<UnixDatagram>,
    path: PathBuf,
    program: String,
    otherwise: E,
}

impl Journal {
    /// At its socket, or else by standard error.
    pub(crate) fn new() -> Self {
        let program = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
        let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self::at(Path::new(SOCKET), program, to_standard_error)
    }
}

/// Where nobody reads it there is nobody to be told.
fn to_standard_error(line: &str) {
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

impl<E> Journal<E> {
    fn at(path: &Path, program: String, otherwise: E) -> Self {
        let socket = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
        Self { socket: socket.ok(), path: path.to_owned(), program, otherwise }
    }
}

/// What a span adds to each line within it.
struct Within {
    text: String,
    fields: Vec<(String, String)>,
}

impl<S, E> Layer<S> for Journal<E>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    E: Fn(&str) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let name = span.metadata().name();
        let mut fields = Fields { within: Some(name), found: Vec::new() };
        attributes.record(&mut fields);
        let text = format!("{name}{{{}}}: ", text_of(attributes));
        span.extensions_mut().insert(Within { text, fields: fields.found });
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields { within: Some(span.metadata().name()), found: Vec::new() };
        record.record(&mut fields);
        if let Some(within) = span.extensions_mut().get_mut::<Within>() {
            within.fields.append(&mut fields.found);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let priority = priority(*metadata.level());
        let mut text = String::new();
        let mut fields = Fields { within: None, found: Vec::new() };
        for span in context.event_scope(event).into_iter().flat_map(tracing_subscriber::registry::Scope::from_root) {
            if let Some(within) = span.extensions().get::<Within>() {
                text.push_str(&within.text);
                fields.found.extend_from_slice(&within.fields);
            }
        }
        text.push_str(&text_of(event));
        event.record(&mut fields);

        let mut line = Vec::with_capacity(512);
        put(&mut line, "MESSAGE", &text);
        put(&mut line, "PRIORITY", &priority.to_string());
        put(&mut line, "SYSLOG_IDENTIFIER", &self.program);
        put(&mut line, &format!("{PREFIX}TARGET"), metadata.target());
        for (name, value) in &fields.found {
            put(&mut line, name, value);
        }
        let sent = self.socket.as_ref().map(|socket| socket.send_to(&line, &self.path));
        if !matches!(sent, Some(Ok(_))) {
            // One line is one entry there (sd-daemon(3)).
            (self.otherwise)(&format!("<{priority}>{}\n", text.replace('\n', " ")));
        }
    }
}

/// As syslog(3) has it.
pub(crate) const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// As lines of text have them.
fn text_of(fields: impl RecordFields) -> String {
    let mut text = String::new();
    // A String takes everything.
    let _ = DefaultFields::new().format_fields(Writer::new(&mut text), fields);
    text
}

struct Fields {
    within: Option<&'static str>,
    found: Vec<(String, String)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: String) {
        if self.within.is_none() && field.name() == "message" {
            return;
        }
        let mut name = PREFIX.to_owned();
        for part in self.within.into_iter().chain([field.name()]) {
            let separator = if name.len() > PREFIX.len() { "_" } else { "" };
            let _ = write!(name, "{separator}{part}");
        }
        let name: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
            .take(LONGEST_NAME)
            .collect();
        self.found.push((name, value));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }
}

fn put(line: &mut Vec<u8>, name: &str, value: &str) {
    line.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        line.push(b'\n');
        line.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        line.push(b'=');
    }
    line.extend_from_slice(value.as_bytes());
    line.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// Runs with a journal at a socket of the test's own, if there is one: datagrams, and what went to standard error.
    fn told(has_socket: bool, run: impl FnOnce()) -> (Vec<Vec<u8>>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journald = has_socket.then(|| UnixDatagram::bind(&path).unwrap());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let journal =
            Journal::at(&path, "test".to_owned(), move |line: &str| kept.lock().unwrap().push(line.to_owned()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), run);
        let mut datagrams = Vec::new();
        if let Some(journald) = journald {
            journald.set_nonblocking(true).unwrap();
            let mut buffer = vec![0; 1 << 20];
            while let Ok(length) = journald.recv(&mut buffer) {
                datagrams.push(buffer[..length].to_vec());
            }
        }
        let lines = lines.lock().unwrap().clone();
        (datagrams, lines)
    }

    #[test]
    fn a_line_has_its_text_its_priority_and_each_field() {
        let (datagrams, lines) = told(true, || {
            tracing::warn!(target: "evermq_lb::health", backend = "broker2", to = %"down", after = 3_u64, "backend");
        });
        assert_eq!(
            String::from_utf8(datagrams.concat()).unwrap(),
            "MESSAGE=backend backend=\"broker2\" to=down after=3\nPRIORITY=4\nSYSLOG_IDENTIFIER=test\n\
             EVERMQ_TARGET=evermq_lb::health\nEVERMQ_BACKEND=broker2\nEVERMQ_TO=down\nEVERMQ_AFTER=3\n"
        );
        assert_eq!(lines, [""; 0]);
    }

    #[test]
    fn a_span_is_in_the_text_and_its_fields_have_its_name() {
        let (datagrams, _) = told(true, || {
            let _span = tracing::info_span!("client", id = "meter-17").entered();
            tracing::info!(bytes = 7, "took");
        });
        let text = String::from_utf8(datagrams.concat()).unwrap();
        assert!(text.starts_with("MESSAGE=client{id=\"meter-17\"}: took bytes=7\nPRIORITY=6\n"), "{text}");
        assert!(text.ends_with("EVERMQ_CLIENT_ID=meter-17\nEVERMQ_BYTES=7\n"), "{text}");
    }

    #[test]
    fn values_of_several_lines_are_told_by_their_length() {
        let (datagrams, _) = told(true, || tracing::error!(problem = "one\nPRIORITY=0", "two\nMESSAGE=three"));
        let line = datagrams.concat();
        let expected = [&b"EVERMQ_PROBLEM\n"[..], &14_u64.to_le_bytes(), b"one\nPRIORITY=0\n"].concat();
        assert!(line.ends_with(&expected), "{}", String::from_utf8_lossy(&line));
        assert!(line.starts_with(b"MESSAGE\n"), "{}", String::from_utf8_lossy(&line));
    }

    #[test]
    fn what_the_journal_does_not_take_goes_to_standard_error() {
        let (_, lines) = told(false, || tracing::info!(backend = "broker2", "one\ntwo"));
        assert_eq!(lines, ["<6>one two backend=\"broker2\"\n"]);
        let (datagrams, lines) = told(true, || {
            tracing::info!(long = "x".repeat(1 << 20), "too long");
            // As many as fit into a queue that nobody reads; none of them waits.
            for number in 0..5000 {
                tracing::info!(number, "again");
            }
        });
        assert!(lines[0].starts_with("<6>too long"), "{}", &lines[0][..40]);
        assert!(!datagrams.is_empty() && datagrams.len() + lines.len() == 5001, "{} {}", datagrams.len(), lines.len());
    }

    #[test]
    fn standard_error_is_the_journals_only_where_it_is_that_file() {
        use std::os::unix::fs::MetadataExt as _;
        let file = tempfile::tempfile().unwrap();
        let about = file.metadata().unwrap();
        assert!(is(&format!("{}:{}", about.dev(), about.ino()), &file));
        assert!(!is(&format!("{}:{}", about.dev(), about.ino() + 1), &file));
        assert!(!is("", &file));
    }
}
