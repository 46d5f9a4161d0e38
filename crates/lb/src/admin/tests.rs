use proptest::prelude::*;

use super::*;

fn drain(rate: u32) -> Change {
    Change { admin: Some((Admin::Drain, Some(rate))), weight: None }
}

fn weight(weight: Option<u16>) -> Change {
    Change { admin: None, weight: Some(weight) }
}

#[test]
fn a_change_leaves_the_rest_as_it_was() {
    let mut words = Words::default();
    assert_eq!(words.of("broker1"), Word::default());
    words.say("broker1", weight(Some(7)), "lb1", 10).unwrap();
    let word = words.say("broker1", drain(50), "lb1", 11).unwrap();
    let stamp = Stamp { time: 11, host: "lb1".to_owned() };
    assert_eq!(word, Word { admin: Admin::Drain, rate: Some(50), weight: Some(7), stamp });
    let ready = Change { admin: Some((Admin::Ready, None)), weight: Some(None) };
    let word = words.say("broker1", ready, "lb1", 12).unwrap();
    assert_eq!((word.admin, word.rate, word.weight), (Admin::Ready, None, None));
}

#[test]
fn the_later_word_wins_and_the_last_one_said_here_is_always_later() {
    let mut words = Words::default();
    let far_ahead =
        Word { admin: Admin::Maint, stamp: Stamp { time: 1_000_000, host: "lb2".to_owned() }, ..Word::default() };
    assert!(words.hear("broker1", far_ahead.clone()));
    assert!(!words.hear("broker1", far_ahead.clone()), "the same word is no news");
    let word = words.say("broker1", drain(1), "lb1", 5).unwrap();
    assert_eq!(word.stamp, Stamp { time: 1_000_001, host: "lb1".to_owned() });
    assert!(!words.hear("broker1", far_ahead));
    assert_eq!(words.of("broker1").admin, Admin::Drain);
}

#[test]
fn a_peer_cannot_fill_the_memory() {
    let mut words = Words::default();
    let word = |time| Word { stamp: Stamp { time, host: "lb2".to_owned() }, ..Word::default() };
    for index in 0..MAX_WORDS {
        assert!(words.hear(&format!("broker{index}"), word(1)));
    }
    assert!(!words.hear("one-more", word(1)));
    assert!(words.hear("broker1", word(2)));
    assert!(!words.hear(&"x".repeat(MAX_NAME + 1), word(3)));
    assert_eq!(words.iter().count(), MAX_WORDS);
}

#[tokio::test]
async fn whoever_watches_is_told_of_news_only() {
    let board = Board::default();
    let mut changes = board.changes();
    board.say("broker1", drain(3), "lb1", 1).unwrap();
    changes.changed().await.unwrap();
    let word = board.words().of("broker1");
    assert!(!board.hear("broker1", word));
    assert!(!changes.has_changed().unwrap());
}

proptest! {
    /// In whatever order and however often words arrive, all lbs hold the same in the end.
    #[test]
    fn lbs_agree(said in prop::collection::vec((0_u64..6, 0_u8..3, 0_u8..2), 1..40), seed in any::<u64>()) {
        let words: Vec<(String, Word)> = said
            .iter()
            .map(|(time, host, backend)| {
                // One host says one thing at one time.
                let admin = Admin::from_u8(u8::try_from(*time).unwrap() % 3).unwrap();
                let stamp = Stamp { time: *time, host: format!("lb{host}") };
                let word = Word { admin, rate: None, weight: Some(u16::from(*host)), stamp };
                (format!("broker{backend}"), word)
            })
            .collect();
        let mut one = Words::default();
        let mut other = Words::default();
        for (backend, word) in &words {
            one.hear(backend, word.clone());
        }
        let mut mixed = words.clone();
        mixed.rotate_left(usize::try_from(seed % words.len() as u64).unwrap());
        mixed.extend(words.iter().rev().cloned());
        for (backend, word) in mixed {
            other.hear(&backend, word);
        }
        prop_assert_eq!(one, other);
    }
}
