//! `evermq ...` in blocks of shell and in sentences: subcommands and options are there. Nothing is run.

use clap::CommandFactory as _;
use clap::error::ErrorKind;
use evermq::command::Cli;

use super::pages;

#[test]
fn every_command_is_one() {
    let mut found = Vec::new();
    for page in pages() {
        for block in page.blocks().into_iter().filter(|block| block.language == "sh") {
            let place = |line: usize| format!("{}:{}", page.path.display(), block.line + line);
            found.extend(commands(&block.text).into_iter().map(|(line, words)| (place(line), words)));
        }
    }
    assert!(found.len() > 40, "{} commands were found", found.len());
    refuse(found, &[ErrorKind::DisplayHelp, ErrorKind::DisplayVersion]);
}

#[test]
fn every_command_in_a_sentence_is_one_or_its_beginning() {
    let mut found = Vec::new();
    for page in pages() {
        for (line, text) in page.prose() {
            // `[--json]` is what may be left out, and not said it would be found wrong.
            let text = text.replace("`[", "`").replace(" [", " ").replace("]`", "`").replace("] ", " ");
            let spans = text.split('`').skip(1).step_by(2).flat_map(commands);
            // What `$SYS/broker/version` says is no command.
            let spans = spans.filter(|(_, words)| words[1] != "version");
            found.extend(spans.map(|(_, words)| (format!("{}:{line}", page.path.display()), words)));
        }
    }
    assert!(found.len() > 100, "{} commands were found", found.len());
    let short = [
        ErrorKind::DisplayHelp,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
        ErrorKind::DisplayVersion,
        ErrorKind::InvalidValue,
        ErrorKind::MissingRequiredArgument,
    ];
    refuse(found, &short);
}

/// Fails with all that are no commands, but for such errors.
fn refuse(found: Vec<(String, Vec<String>)>, permitted: &[ErrorKind]) {
    let wrong = found.into_iter().filter_map(|(place, words)| {
        let error = Cli::command().try_get_matches_from(&words).err()?;
        (!permitted.contains(&error.kind())).then(|| format!("{place}: {}\n{error}", words.join(" ")))
    });
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn words_are_found_as_a_shell_finds_them() {
    let text =
        "tls='--cafile ca.crt'\nssh root@lb1 'evermq check && evermq sub $tls \\\n  -t \"a b\" | wc' # evermq no\n";
    let expected = [(1, vec!["evermq", "check"]), (1, vec!["evermq", "sub", "--cafile", "ca.crt", "-t", "a b"])];
    let expected = expected.map(|(line, words)| (line, words.into_iter().map(str::to_owned).collect::<Vec<_>>()));
    assert_eq!(commands(text), expected);
}

/// The commands of `evermq` in a script, each with its line from 0.
fn commands(script: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut tls = String::new();
    let mut lines = script.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let mut line = line.to_owned();
        while line.ends_with('\\') {
            line.pop();
            line += lines.next().unwrap().1;
        }
        if let Some(value) = line.strip_prefix("tls=") {
            value.trim_matches('\'').clone_into(&mut tls);
            continue;
        }
        let line = line.replace("$tls", &tls);
        // What another host is to run stands in quotes of its own.
        let remote = line.trim_start().starts_with("ssh ").then(|| line.split('\'').nth(1)).flatten();
        for command in split(remote.unwrap_or(&line)) {
            let begin = command.iter().position(|word| !["sudo", "do", "then"].contains(&word.as_str()));
            // `lab exec` runs another command, which may be one of evermq's; words before it are for the shell.
            for begin in begin.into_iter().chain(command.iter().position(|word| word == "--").map(|at| at + 1)) {
                let mut words = command[begin..].to_vec();
                if words.len() > 1 && (words[0] == "evermq" || words[0].ends_with("/evermq")) {
                    "evermq".clone_into(&mut words[0]);
                    found.push((number, words));
                }
            }
        }
    }
    found
}

/// A line's commands, each in words.
fn split(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() || ";|&<>()".contains(c) => {
                words.extend(word.take());
                if !c.is_whitespace() {
                    commands.push(std::mem::take(&mut words));
                }
            }
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    commands.push(words);
    commands
}
