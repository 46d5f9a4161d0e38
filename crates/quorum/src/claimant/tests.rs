#![expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]

use proptest::prelude::*;

use super::*;

const LEASE: Duration = Duration::from_millis(200);
const VIP: Resource = Resource::new(false, 51);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A claim among `voters`, of which this host is the first, that is wanted since the instant.
fn wanted(voters: usize) -> (Claimant, Instant) {
    let start = Instant::now();
    let settings = Settings { voters, own: 0, lease: LEASE, gateway: false, seed: 7 };
    let mut claimant = Claimant::new(VIP, settings, start);
    claimant.handle_want(true, 150, start);
    (claimant, start)
}

fn asks(claimant: &mut Claimant) -> Vec<(usize, Ask)> {
    std::iter::from_fn(|| claimant.poll_transmit()).collect()
}

fn request(claim: u32) -> Ask {
    Ask::Request { claim, rank: 150, lease: LEASE }
}

fn grant(sent: Instant) -> Answer {
    Answer::Vote { vote: Vote::Granted { lease: LEASE }, sent }
}

fn refuse(refusal: Refusal, left: Duration, sent: Instant) -> Answer {
    Answer::Vote { vote: Vote::Refused { refusal, left }, sent }
}

/// Lets the claim win among three, at `now`.
fn holding() -> (Claimant, Instant) {
    let (mut claimant, start) = wanted(3);
    asks(&mut claimant);
    claimant.handle_answer(0, 1, grant(start), start);
    claimant.handle_answer(1, 1, grant(start), start);
    assert_eq!(claimant.poll_action(), Some(Verdict::Granted));
    (claimant, start)
}

#[test]
fn a_claim_asks_everyone_at_once_and_wins_with_a_majority() {
    for (voters, majority) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
        let (mut claimant, start) = wanted(voters);
        assert_eq!(asks(&mut claimant), (0..voters).map(|voter| (voter, request(1))).collect::<Vec<_>>());
        for voter in 0..majority {
            assert_eq!(claimant.poll_action(), None, "{voter} of {voters}");
            claimant.handle_answer(voter, 1, grant(start), start);
        }
        assert_eq!(claimant.poll_action(), Some(Verdict::Granted), "{voters}");
        assert_eq!((claimant.poll_action(), claimant.stage()), (None, Stage::Holding));
        assert_eq!(asks(&mut claimant), []);
    }
}

#[test]
fn a_grant_counts_from_when_it_was_asked_for_and_not_for_all_of_the_lease() {
    let (mut claimant, start) = wanted(3);
    claimant.handle_answer(0, 1, grant(start), start + ms(50));
    claimant.handle_answer(1, 1, grant(start + ms(40)), start + ms(50));
    assert!(claimant.holds(start + ms(189)));
    assert!(!claimant.holds(start + ms(190)));
    // The second latest of two: the first one's renewal makes it the other's.
    claimant.handle_answer(0, 1, grant(start + ms(100)), start + ms(150));
    assert!(claimant.holds(start + ms(229)));
    assert!(!claimant.holds(start + ms(230)));
}

#[test]
fn the_shorter_lease_of_a_voter_counts() {
    let (mut claimant, start) = wanted(1);
    let vote = Vote::Granted { lease: ms(100) };
    claimant.handle_answer(0, 1, Answer::Vote { vote, sent: start }, start);
    assert!(claimant.holds(start + ms(94)) && !claimant.holds(start + ms(95)));
}

#[test]
fn a_grant_that_comes_too_late_is_none() {
    let (mut claimant, start) = wanted(1);
    claimant.handle_answer(0, 1, grant(start), start + ms(190));
    assert_eq!(claimant.poll_action(), None);
}

#[test]
fn votes_are_renewed_and_missing_ones_asked_for_more_often() {
    let (mut claimant, start) = holding();
    claimant.handle_timeout(start + ms(10));
    assert_eq!(asks(&mut claimant), [(2, request(1))], "the third has not answered");
    claimant.handle_timeout(start + ms(20));
    assert_eq!(asks(&mut claimant), [(2, request(1))]);
    claimant.handle_answer(2, 1, grant(start), start + ms(20));
    assert_eq!(claimant.poll_timeout(), Some(start + ms(40)));
    claimant.handle_timeout(start + ms(40));
    assert_eq!(asks(&mut claimant), [(0, request(1)), (1, request(1))]);
    assert_eq!(claimant.poll_timeout(), Some(start + ms(50)));
}

#[test]
fn without_a_majority_the_claim_is_lost_and_over_and_votes_go_back_a_little_later() {
    let (mut claimant, start) = holding();
    claimant.handle_timeout(start + ms(189));
    asks(&mut claimant);
    assert_eq!(claimant.poll_action(), None);
    claimant.handle_timeout(start + ms(190));
    assert_eq!(claimant.poll_action(), Some(Verdict::Lost));
    assert_eq!((claimant.stage(), asks(&mut claimant)), (Stage::Idle, vec![]), "the address goes first");
    claimant.handle_timeout(start + ms(200));
    let yields: Vec<_> = (0..3).map(|voter| (voter, Ask::Yield { claim: 1 })).collect();
    assert_eq!(asks(&mut claimant), yields);
    // A grant that was under way changes nothing.
    claimant.handle_answer(0, 1, grant(start + ms(180)), start + ms(200));
    claimant.handle_answer(1, 1, grant(start + ms(180)), start + ms(200));
    assert_eq!((claimant.poll_action(), claimant.stage()), (None, Stage::Idle));
}

#[test]
fn a_holder_that_did_not_run_learns_it_from_whatever_comes_first() {
    let (mut claimant, start) = holding();
    let late = start + ms(10_000);
    assert!(!claimant.holds(late));
    claimant.handle_answer(0, 1, grant(start + ms(150)), late);
    assert_eq!(claimant.poll_action(), Some(Verdict::Lost));
}

#[test]
fn a_yield_is_said_until_it_is_heard() {
    let (mut claimant, start) = holding();
    claimant.handle_want(false, 0, start + ms(1));
    assert_eq!((claimant.stage(), claimant.poll_action()), (Stage::Idle, None));
    assert!(!claimant.holds(start + ms(1)));
    let to_all: Vec<_> = (0..3).map(|voter| (voter, Ask::Yield { claim: 1 })).collect();
    assert_eq!(asks(&mut claimant), to_all);
    claimant.handle_answer(0, 1, Answer::Heard, start + ms(2));
    claimant.handle_answer(1, 1, Answer::Heard, start + ms(2));
    let mut said = 1;
    while let Some(due) = claimant.poll_timeout() {
        claimant.handle_timeout(due);
        let asked = asks(&mut claimant);
        assert_eq!(asked, [(2, Ask::Yield { claim: 1 })]);
        said += 1;
    }
    assert_eq!(said, 6);
}

#[test]
fn answers_to_an_earlier_claim_do_not_count() {
    let (mut claimant, start) = holding();
    claimant.handle_want(false, 0, start);
    claimant.handle_want(true, 150, start);
    asks(&mut claimant);
    for voter in 0..3 {
        claimant.handle_answer(voter, 1, grant(start), start);
    }
    assert_eq!(claimant.poll_action(), None);
    claimant.handle_answer(0, 2, grant(start), start);
    claimant.handle_answer(1, 2, grant(start), start);
    assert_eq!(claimant.poll_action(), Some(Verdict::Granted));
}

#[test]
fn a_claim_that_cannot_win_gives_back_and_waits_for_the_lease_in_its_way() {
    let (mut claimant, start) = wanted(3);
    asks(&mut claimant);
    claimant.handle_answer(0, 1, grant(start), start);
    claimant.handle_answer(1, 1, refuse(Refusal::Held, ms(30), start), start);
    assert!(matches!(claimant.stage(), Stage::Seeking { .. }), "one of three may refuse");
    claimant.handle_answer(2, 1, refuse(Refusal::Held, ms(25), start), start);
    assert_eq!(asks(&mut claimant), [(0, Ask::Yield { claim: 1 })]);
    // A twentieth of the lease by (256 - 150) / 256.
    let skew = ms(10) * 106 / 256;
    assert_eq!(claimant.stage(), Stage::Waiting { until: start + ms(25) + skew });
    claimant.handle_timeout(start + ms(25) + skew);
    assert_eq!(asks(&mut claimant), (0..3).map(|voter| (voter, request(2))).collect::<Vec<_>>());
}

#[test]
fn claims_that_collide_wait_by_rank_and_then_differently() {
    let collide = |rank: u8, seed: u64, turns: u32| {
        let start = Instant::now();
        let settings = Settings { voters: 2, own: 0, lease: LEASE, gateway: false, seed };
        let mut claimant = Claimant::new(VIP, settings, start);
        claimant.handle_want(true, rank, start);
        let mut now = start;
        for claim in 1..=turns {
            claimant.handle_answer(0, claim, grant(now), now);
            claimant.handle_answer(1, claim, refuse(Refusal::Held, LEASE, now), now);
            let Stage::Waiting { until } = claimant.stage() else { panic!("{:?}", claimant.stage()) };
            if claim == turns {
                return until - now;
            }
            now = until;
            claimant.handle_timeout(now);
        }
        Duration::ZERO
    };
    assert!(collide(200, 1, 1) < collide(199, 1, 1));
    assert_eq!(collide(100, 1, 1), collide(100, 2, 1));
    assert_ne!(collide(100, 1, 2), collide(100, 2, 2));
    let longest = (1..200).map(|seed| collide(0, seed, 5)).max().unwrap();
    assert!(longest <= ms(40 + 10 + 50 + 100), "{longest:?}");
}

#[test]
fn a_claim_without_an_answer_makes_room_after_half_a_lease() {
    let (mut claimant, start) = wanted(3);
    claimant.handle_answer(0, 1, grant(start), start);
    claimant.handle_timeout(start + ms(99));
    assert!(matches!(claimant.stage(), Stage::Seeking { .. }));
    asks(&mut claimant);
    claimant.handle_timeout(start + ms(100));
    assert!(matches!(claimant.stage(), Stage::Waiting { .. }));
    let yields: Vec<_> = (0..3).map(|voter| (voter, Ask::Yield { claim: 1 })).collect();
    assert_eq!(asks(&mut claimant), yields, "also to those whose grant may have been lost");
}

#[test]
fn a_voter_that_restarted_takes_nothing_back_but_one_that_has_another_holder_does() {
    let (mut claimant, start) = holding();
    claimant.handle_answer(1, 1, refuse(Refusal::Abstains, LEASE, start), start + ms(1));
    assert_eq!(claimant.poll_action(), None);
    claimant.handle_answer(1, 1, refuse(Refusal::Held, LEASE, start), start + ms(2));
    assert_eq!(claimant.poll_action(), Some(Verdict::Lost));
}

#[test]
fn whoever_is_reacquainted_is_asked_again_at_once() {
    let (mut claimant, start) = wanted(3);
    asks(&mut claimant);
    claimant.handle_reacquainted(1, start + ms(1));
    assert_eq!(claimant.poll_timeout(), Some(start + ms(1)));
    claimant.handle_timeout(start + ms(1));
    assert_eq!(asks(&mut claimant), [(1, request(1))]);
}

#[test]
fn a_longer_file_leaves_a_lease_to_get_the_new_votes() {
    let four = Settings { voters: 4, own: 0, lease: LEASE, gateway: false, seed: 7 };
    let places = [Some(0), Some(1), Some(2), None];
    let (mut claimant, start) = holding();
    claimant.handle_settings(four, &places, true, start + ms(10));
    assert!(claimant.holds(start + ms(189)) && !claimant.holds(start + ms(190)), "two of three, but not of four");
    claimant.handle_timeout(start + ms(10));
    assert!(asks(&mut claimant).contains(&(3, request(1))));
    for voter in [0, 2, 3] {
        claimant.handle_answer(voter, 1, grant(start + ms(10)), start + ms(11));
    }
    assert!(claimant.holds(start + ms(199)) && !claimant.holds(start + ms(200)));

    let (mut claimant, start) = holding();
    claimant.handle_settings(four, &places, false, start + ms(10));
    assert_eq!(claimant.poll_action(), Some(Verdict::Lost), "too different a file");
}

#[test]
fn with_a_gateway_the_silent_count_as_gone_and_the_others_have_to_consent() {
    let start = Instant::now();
    let settings = Settings { voters: 3, own: 0, lease: LEASE, gateway: true, seed: 7 };
    let mut claimant = Claimant::new(VIP, settings, start);
    claimant.handle_want(true, 150, start);
    claimant.handle_answer(0, 1, grant(start), start);
    claimant.handle_gateway(start, start);
    claimant.handle_timeout(start + ms(99));
    assert_eq!(claimant.poll_action(), None, "the others may only be slow");
    claimant.handle_timeout(start + ms(100));
    assert_eq!(claimant.poll_action(), Some(Verdict::Granted));
    claimant.handle_answer(1, 1, refuse(Refusal::Held, LEASE, start), start + ms(110));
    assert_eq!(claimant.poll_action(), Some(Verdict::Lost), "one that can be reached has another holder");
}

#[test]
fn with_a_gateway_that_does_not_answer_the_majority_is_needed() {
    let start = Instant::now();
    let settings = Settings { voters: 2, own: 0, lease: LEASE, gateway: true, seed: 7 };
    let mut claimant = Claimant::new(VIP, settings, start);
    claimant.handle_want(true, 150, start);
    claimant.handle_answer(0, 1, grant(start), start);
    claimant.handle_answer(1, 1, grant(start), start);
    assert_eq!(claimant.poll_action(), Some(Verdict::Granted));
    claimant.handle_gateway(start + ms(100), start + ms(100));
    claimant.handle_answer(0, 1, grant(start + ms(150)), start + ms(150));
    claimant.handle_timeout(start + ms(190));
    assert_eq!(claimant.poll_action(), None, "the other is silent, the gateway and this host's own vote are enough");
    claimant.handle_timeout(start + ms(290));
    assert_eq!(claimant.poll_action(), Some(Verdict::Lost));
}

proptest! {
    /// Whatever is answered in whichever order: what is held has the votes of a majority, asked for less than a lease ago by
    /// this very claim, and the driver knows.
    #[test]
    fn nothing_is_held_without_a_majority(
        voters in 1..6usize,
        steps in proptest::collection::vec((0..8u8, 0..5usize, 0..60u64, 0..250u64), 1..120),
    ) {
        let start = Instant::now() + ms(1_000);
        let settings = Settings { voters, own: 0, lease: LEASE, gateway: false, seed: 3 };
        let mut claimant = Claimant::new(VIP, settings, start);
        let (mut now, mut told) = (start, false);
        // By voter: the latest that was granted to the present claim.
        let mut granted: Vec<(u32, Option<Instant>)> = vec![(0, None); voters];
        for (kind, voter, pause, age) in steps {
            now += ms(pause);
            let (voter, sent) = (voter % voters, now - ms(age));
            match kind {
                0 => claimant.handle_want(true, 100, now),
                1 if age < 50 => { claimant.handle_want(false, 100, now); told = false; }
                2 => {
                    granted[voter] = (0, None);
                    claimant.handle_answer(voter, claimant.claim, refuse(Refusal::Held, ms(age), sent), now);
                }
                3..=5 => {
                    let claim = claimant.claim;
                    let before = granted[voter].1.filter(|_| granted[voter].0 == claim);
                    granted[voter] = (claim, before.max(Some(sent)));
                    claimant.handle_answer(voter, claim, grant(sent), now);
                }
                6 => claimant.handle_answer(voter, claimant.claim.wrapping_sub(1), grant(sent), now),
                _ => claimant.handle_timeout(now),
            }
            while let Some(action) = claimant.poll_action() {
                prop_assert!(action == Verdict::Granted || told || claimant.stage() == Stage::Idle);
                told = action == Verdict::Granted;
            }
            let votes = granted.iter().filter(|(claim, sent)| {
                *claim == claimant.claim && sent.is_some_and(|sent| now < sent + LEASE * 19 / 20)
            });
            if claimant.holds(now) {
                prop_assert!(votes.count() > voters / 2);
                prop_assert!(told);
            }
            if claimant.is_wanted() {
                prop_assert!(claimant.poll_timeout().is_some());
            }
        }
    }
}
