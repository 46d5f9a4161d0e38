//! Text in aligned columns.

use std::fmt;

/// Rows of text, shown in columns as wide as their widest cell. The last column is not padded.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
    indent: usize,
}

/// Between two columns.
const GAP: usize = 2;

impl Table {
    /// A table under these column titles.
    #[must_use]
    pub fn titled(titles: &[&str]) -> Self {
        let mut table = Self::default();
        table.row(titles.iter().copied());
        table
    }

    /// A table without titles, each line moved right by `indent` spaces.
    #[must_use]
    pub fn indented(indent: usize) -> Self {
        Self { rows: Vec::new(), indent }
    }

    /// Adds a row. Control characters, which could move the cursor of a terminal, become `?`.
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(|cell| printable(cell.as_ref())).collect());
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for row in &self.rows {
            let mut line = " ".repeat(self.indent);
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.push_str(&" ".repeat(width + GAP - cell.chars().count()));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::titled(&["NAME", "ADDRESS"]);
        table.row(["a-long-name", "10.0.0.1"]);
        table.row(["ü", "-"]);
        assert_eq!(table.to_string(), "NAME         ADDRESS\na-long-name  10.0.0.1\nü            -\n");
    }

    #[test]
    fn short_rows_and_indentation() {
        let mut table = Table::indented(2);
        table.row(["a", "b", "c"]);
        table.row(["only"]);
        assert_eq!(table.to_string(), "  a     b  c\n  only\n");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut table = Table::default();
        table.row(["\u{1b}[2Jname"]);
        assert_eq!(table.to_string(), "?[2Jname\n");
    }
}
