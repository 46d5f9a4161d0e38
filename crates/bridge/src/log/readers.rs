//! Readers that come and go while the log goes on.

use std::sync::Arc;

use super::{Entry, OriginLog, Reader};

impl OriginLog {
    /// One more reader, which gets what comes from now on. Its number is never another one's.
    pub(crate) fn add_reader(&mut self) -> usize {
        let reader = self.readers.len();
        self.readers.push(Reader::default());
        self.set_acknowledged(reader, self.last);
        reader
    }

    /// Nothing is kept for that reader any more. Gives whether the pressure was relieved.
    pub(crate) fn remove_reader(&mut self, reader: usize, left: &mut Vec<Arc<Entry>>) -> bool {
        self.readers[reader] = Reader { has_left: true, ..self.readers[reader].clone() };
        self.readers[reader].connected = false;
        self.release(left)
    }
}

#[cfg(test)]
mod tests {
    use crate::log::Read;
    use crate::log::tests::{append, log, numbers, read, room};

    #[test]
    fn a_reader_that_comes_gets_what_comes_from_then_on() {
        let mut log = log(1000, 1 << 20, 1);
        append(&mut log, 3);
        let new = log.add_reader();
        assert_eq!((new, log.acknowledged(new), log.lag(new).0), (1, 3, 0));
        append(&mut log, 2);
        log.acknowledge(0, 5, &mut Vec::new());
        assert_eq!(log.first(), 4, "it still needs them");
        assert_eq!(numbers(read(&mut log, new, room(4))), [4, 5]);
        log.acknowledge(new, 5, &mut Vec::new());
        assert_eq!(log.len(), 0);
    }

    #[test]
    fn nothing_is_kept_for_a_reader_that_has_left_and_it_holds_up_nobody() {
        let mut log = log(100, 1 << 20, 2);
        log.attach(0, 0, &mut Vec::new());
        log.attach(1, 0, &mut Vec::new());
        append(&mut log, 60);
        log.acknowledge(0, 50, &mut Vec::new());
        assert!(log.is_high());
        let mut left = Vec::new();
        assert!(log.remove_reader(1, &mut left), "the pressure was its");
        assert_eq!((left.len(), log.first(), log.is_high()), (50, 51, false));
        // What its task still does for it changes nothing.
        log.attach(1, 3, &mut left);
        log.acknowledge(1, 10, &mut left);
        assert!(!append(&mut log, 30).high);
        log.acknowledge(0, 90, &mut left);
        assert_eq!(log.len(), 0);
        // Its number is not given again, and without any reader nothing stays.
        assert_eq!(log.add_reader(), 2);
        log.remove_reader(0, &mut left);
        log.remove_reader(2, &mut left);
        append(&mut log, 5);
        assert_eq!((log.len(), log.first(), log.last()), (0, 96, 95));
        assert!(matches!(read(&mut log, 2, room(96)), Read::End));
    }
}
