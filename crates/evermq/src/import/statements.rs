//! Configuration files of words and blocks: nginx's, which end statements with `;`, and keepalived's, which end them with a line.

use std::path::Path;
use std::rc::Rc;

use super::finding::Place;

/// Words, perhaps with a block behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Where its first word stands.
    pub place: Place,
    /// At least one.
    pub words: Vec<String>,
    /// What stands between its braces.
    pub block: Option<Vec<Statement>>,
    /// Lines that it takes, its block's included.
    pub lines: usize,
}

/// How statements end, and what begins a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grammar {
    /// `;` ends a statement, `#` begins a comment.
    Nginx,
    /// A line's end ends a statement, `#` and `!` begin a comment.
    Keepalived,
}

/// Why a text is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}: {reason}", place.file.display(), place.line)]
pub struct SyntaxError {
    /// Where.
    pub place: Place,
    /// What is wrong, and what to do.
    pub reason: &'static str,
}

/// Blocks within blocks.
const MOST_DEPTH: usize = 32;

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
    End,
}

impl Statement {
    /// Its first word.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.words[0]
    }

    /// What follows its first word.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.words[1..]
    }

    /// Its second word.
    #[must_use]
    pub fn argument(&self) -> &str {
        self.words.get(1).map_or("", String::as_str)
    }

    /// What stands in its block.
    #[must_use]
    pub fn inside(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// Its words as a line; a block is only hinted at.
    #[must_use]
    pub fn text(&self) -> String {
        let words = self.words.join(" ");
        match self.block {
            Some(_) if self.lines > 1 => format!("{words} {{ ({} lines) }}", self.lines),
            Some(_) => format!("{words} {{ }}"),
            None => words,
        }
    }
}

/// Reads a file's text.
///
/// # Errors
/// Braces or quotes that are never closed, or closed without being open.
pub fn parse(file: &Rc<Path>, text: &str, grammar: Grammar) -> Result<Vec<Statement>, SyntaxError> {
    let tokens = tokens(file, text, grammar)?;
    let mut parser = Parser { file, tokens: &tokens, at: 0 };
    let statements = parser.block(0)?;
    match parser.tokens.get(parser.at) {
        Some((_, line)) => Err(parser.error(*line, "a } without its {; delete it, or find where the { was lost")),
        None => Ok(statements),
    }
}

struct Parser<'a> {
    file: &'a Rc<Path>,
    tokens: &'a [(Token, usize)],
    at: usize,
}

impl Parser<'_> {
    fn error(&self, line: usize, reason: &'static str) -> SyntaxError {
        SyntaxError { place: Place { file: Rc::clone(self.file), line }, reason }
    }

    fn block(&mut self, depth: usize) -> Result<Vec<Statement>, SyntaxError> {
        let mut statements: Vec<Statement> = Vec::new();
        let mut words: Vec<(String, usize)> = Vec::new();
        loop {
            let Some((token, line)) = self.tokens.get(self.at) else {
                self.push(&mut statements, &mut words);
                return Ok(statements);
            };
            match token {
                Token::Word(word) => words.push((word.clone(), *line)),
                Token::End => self.push(&mut statements, &mut words),
                Token::Close => {
                    self.push(&mut statements, &mut words);
                    return Ok(statements);
                }
                Token::Open => {
                    if depth == MOST_DEPTH {
                        return Err(self.error(*line, "blocks stand in each other too deep"));
                    }
                    // keepalived lets a brace stand on the line after its word.
                    if words.is_empty() && statements.last().is_some_and(|last| last.block.is_none()) {
                        let last = statements.pop().expect("it was looked at just now");
                        words = last.words.into_iter().map(|word| (word, last.place.line)).collect();
                    }
                    let first = words.first().map_or(*line, |(_, line)| *line);
                    self.at += 1;
                    let block = self.block(depth + 1)?;
                    let Some((Token::Close, end)) = self.tokens.get(self.at) else {
                        return Err(self.error(first, "a { that is never closed; add its }"));
                    };
                    if words.is_empty() {
                        return Err(self.error(first, "a { without a word before it; delete it, or write what it is"));
                    }
                    statements.push(Statement {
                        place: Place { file: Rc::clone(self.file), line: first },
                        words: words.drain(..).map(|(word, _)| word).collect(),
                        block: Some(block),
                        lines: end - first + 1,
                    });
                }
            }
            self.at += 1;
        }
    }

    fn push(&self, statements: &mut Vec<Statement>, words: &mut Vec<(String, usize)>) {
        let Some((_, line)) = words.first() else { return };
        let (place, last) =
            (Place { file: Rc::clone(self.file), line: *line }, words.last().map_or(*line, |word| word.1));
        let lines = last - place.line + 1;
        let words = words.drain(..).map(|(word, _)| word).collect();
        statements.push(Statement { place, words, block: None, lines });
    }
}

fn tokens(file: &Rc<Path>, text: &str, grammar: Grammar) -> Result<Vec<(Token, usize)>, SyntaxError> {
    let mut tokens = Vec::new();
    let (mut word, mut in_word, mut line) = (String::new(), false, 1);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let is_comment = match grammar {
            Grammar::Nginx => c == '#' && !in_word,
            Grammar::Keepalived => c == '#' || c == '!' && !in_word,
        };
        let token = match c {
            _ if is_comment => {
                while chars.next_if(|c| *c != '\n').is_some() {}
                continue;
            }
            '"' | '\'' if !in_word || grammar == Grammar::Keepalived => {
                let started = line;
                loop {
                    match chars.next() {
                        Some(end) if end == c => break,
                        Some('\\') => word.extend(chars.next()),
                        Some(inner) => {
                            line += usize::from(inner == '\n');
                            word.push(inner);
                        }
                        None => {
                            let place = Place { file: Rc::clone(file), line: started };
                            return Err(SyntaxError { place, reason: "a quote that is never closed; close it" });
                        }
                    }
                }
                in_word = true;
                continue;
            }
            '\\' if grammar == Grammar::Nginx => {
                word.extend(chars.next());
                in_word = true;
                continue;
            }
            // A variable of nginx, `${name}`, is no block.
            '{' if grammar == Grammar::Nginx && word.ends_with('$') => {
                word.push('{');
                word.extend(std::iter::from_fn(|| chars.next_if(|c| *c != '}' && *c != '\n')));
                continue;
            }
            '}' if grammar == Grammar::Nginx && word.rsplit_once("${").is_some_and(|(_, name)| !name.contains('}')) => {
                word.push('}');
                continue;
            }
            '{' => Some(Token::Open),
            '}' => Some(Token::Close),
            ';' if grammar == Grammar::Nginx => Some(Token::End),
            '\n' if grammar == Grammar::Keepalived => Some(Token::End),
            c if c.is_whitespace() => None,
            c => {
                word.push(c);
                in_word = true;
                continue;
            }
        };
        if in_word {
            tokens.push((Token::Word(std::mem::take(&mut word)), line));
            in_word = false;
        }
        tokens.extend(token.map(|token| (token, line)));
        line += usize::from(c == '\n');
    }
    if in_word {
        tokens.push((Token::Word(word), line));
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, grammar: Grammar) -> Result<Vec<Statement>, SyntaxError> {
        parse(&Rc::from(Path::new("x.conf")), text, grammar)
    }

    /// `name(argument argument){...}@line`
    fn shown(statements: &[Statement]) -> String {
        let one = |statement: &Statement| {
            let block = statement.block.as_ref().map_or_else(String::new, |block| format!("{{{}}}", shown(block)));
            format!("{}{block}@{}", statement.words.join("+"), statement.place.line)
        };
        statements.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn nginxs_statements() {
        let text = "user www; # comment; {\nstream {\n  upstream b { server a:1 weight=2;\n  server 'b c':2\n  ; }\n  map $x ${y} { default \"a;b\"; }\n}\n";
        let statements = read(text, Grammar::Nginx).unwrap();
        let expected =
            "user+www@1 stream{upstream+b{server+a:1+weight=2@3 server+b c:2@4}@3 map+$x+${y}{default+a;b@6}@6}@2";
        assert_eq!(shown(&statements), expected);
        assert_eq!(statements[1].lines, 6);
    }

    #[test]
    fn keepaliveds_statements() {
        let text = "! comment\nvrrp_instance VI_1\n{\n  state MASTER # c\n  virtual_ipaddress { 10.0.0.1/24 dev eth0 }\n  notify \"/bin/x a b\"\n}\n";
        let expected =
            "vrrp_instance+VI_1{state+MASTER@4 virtual_ipaddress{10.0.0.1/24+dev+eth0@5}@5 notify+/bin/x a b@6}@2";
        assert_eq!(shown(&read(text, Grammar::Keepalived).unwrap()), expected);
    }

    #[test]
    fn what_is_never_closed_is_named() {
        for (text, line) in [("a {\nb;\n", 1), ("a;\n}\n", 2), ("a;\nb 'c;\n", 2), ("{ x; }", 1)] {
            assert_eq!(read(text, Grammar::Nginx).unwrap_err().place.line, line, "{text:?}");
        }
        let deep = "a {\n".repeat(100);
        assert!(read(&deep, Grammar::Keepalived).is_err());
    }
}
