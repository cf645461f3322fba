use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_000_000;

fn policy() -> Policy {
    Policy { email: true, sms: true, claim: Duration::from_secs(15), give_up_after: Duration::from_secs(3600) }
}

fn placed(email: bool, phone: bool) -> Placed {
    Placed {
        email: email.then(|| "ann@example.org".into()),
        phone: phone.then(|| "+491511234567".into()),
        total: Money::new(1999, "EUR".parse().unwrap()).unwrap(),
        items: Vec::new(),
    }
}

fn report(send: &Send, verdict: Verdict) -> Report {
    Report { notice: send.notice, channel: send.channel, verdict }
}

fn sent() -> Verdict {
    Verdict::Sent { provider_id: None }
}

/// Learns the facts, claims after each and delivers what was claimed; returns what was sent.
fn lived(facts: &[Fact], policy: &Policy) -> (State, Vec<(Notice, Channel)>) {
    let (mut state, mut log) = (State::default(), Vec::new());
    for fact in facts {
        state.learn(fact, policy, NOW);
        for send in state.claim(&CHANNELS, policy, NOW) {
            assert_eq!(state.report(&report(&send, sent()), policy, NOW), Some(Announcement::Sent));
            log.push((send.notice, send.channel));
        }
    }
    (state, log)
}

fn ends() -> impl Strategy<Value = Vec<Fact>> {
    prop_oneof![
        Just(vec![]),
        Just(vec![Fact::Confirmed]),
        Just(vec![Fact::Cancelled(CancelReason::OutOfStock)]),
        Just(vec![Fact::Confirmed, Fact::Cancelled(CancelReason::Customer)]),
    ]
}

proptest! {
    #[test]
    fn any_arrival_order_and_duplication_sends_each_notice_once_and_ends_in_the_same_state(
        email: bool, phone: bool, sms_in_use: bool,
        ends in ends(),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        keys in prop::collection::vec(any::<u32>(), 16),
    ) {
        let policy = Policy { sms: sms_in_use, ..policy() };
        let facts: Vec<Fact> = std::iter::once(Fact::Placed(placed(email, phone))).chain(ends).collect();
        let (straight, mut expected) = lived(&facts, &policy);
        let mut arrivals: Vec<Fact> = facts.iter().chain(again.iter().map(|i| i.get(&facts))).cloned().collect();
        let mut keyed: Vec<(u32, Fact)> = keys.into_iter().cycle().zip(arrivals.drain(..)).collect();
        keyed.sort_by_key(|(key, _)| *key);
        let arrivals: Vec<Fact> = keyed.into_iter().map(|(_, fact)| fact).collect();
        let (shaken, mut log) = lived(&arrivals, &policy);
        prop_assert_eq!(straight, shaken);
        expected.sort_unstable();
        log.sort_unstable();
        prop_assert_eq!(log, expected);
    }

    #[test]
    fn whatever_providers_answer_a_delivery_ends_once_and_is_announced_once(
        verdicts in prop::collection::vec(0..5_u8, 1..40),
        step_ms in 1..400_000_i64,
    ) {
        let policy = policy();
        let mut state = State::default();
        state.learn(&Fact::Placed(placed(true, false)), &policy, NOW);
        let key = (Notice::Acknowledgement, Channel::Email);
        let mut announced = 0;
        for (n, verdict) in verdicts.into_iter().enumerate() {
            let now = NOW + step_ms * n as i64;
            let verdict = match verdict {
                0 => sent(),
                1 => Verdict::Refused { reason: "no".into() },
                2 => Verdict::Postponed { after: Duration::from_secs(5) },
                _ => Verdict::Later { reason: "busy".into(), after: Duration::from_secs(5) },
            };
            let before = state.deliveries[&key].clone();
            let report = Report { notice: key.0, channel: key.1, verdict };
            announced += u32::from(state.report(&report, &policy, now).is_some());
            if before.status != Status::Due {
                prop_assert_eq!(&before, &state.deliveries[&key], "what is final stays");
            }
        }
        prop_assert_eq!(announced, u32::from(state.deliveries[&key].status != Status::Due));
    }
}

#[test]
fn a_confirmation_that_came_first_is_sent_once_the_contact_is_known() {
    let mut state = State::default();
    state.learn(&Fact::Confirmed, &policy(), NOW);
    assert_eq!(state.claim(&CHANNELS, &policy(), NOW), []);
    state.learn(&Fact::Placed(placed(true, true)), &policy(), NOW);
    let due: Vec<_> = state.claim(&CHANNELS, &policy(), NOW).iter().map(|s| (s.notice, s.channel)).collect();
    let (first, second) = (Notice::Acknowledgement, Notice::Confirmation);
    assert_eq!(due, [(first, Channel::Email), (first, Channel::Sms), (second, Channel::Email), (second, Channel::Sms)]);
}

#[test]
fn what_is_claimed_belongs_to_one_until_the_claim_ends() {
    let mut state = State::default();
    state.learn(&Fact::Placed(placed(true, false)), &policy(), NOW);
    assert_eq!(state.claim(&[Channel::Sms], &policy(), NOW), []);
    assert_eq!(state.claim(&CHANNELS, &policy(), NOW).len(), 1);
    assert_eq!(state.claim(&CHANNELS, &policy(), NOW + 14_999), []);
    assert_eq!(state.claim(&CHANNELS, &policy(), NOW + 15_000).len(), 1);
}

#[test]
fn a_channel_that_is_not_in_use_is_skipped_and_a_missing_address_is_nothing() {
    let policy = Policy { sms: false, ..policy() };
    let mut state = State::default();
    state.learn(&Fact::Placed(placed(false, true)), &policy, NOW);
    assert_eq!(state.next_due(&CHANNELS, NOW), []);
    let statuses: Vec<_> = state.deliveries.values().map(|d| d.status).collect();
    assert_eq!(statuses, [Status::Skipped]);
}

#[test]
fn a_cancellation_says_why() {
    let mut state = State::default();
    state.learn(&Fact::Cancelled(CancelReason::OutOfStock), &policy(), NOW);
    state.learn(&Fact::Placed(placed(true, false)), &policy(), NOW);
    let reasons: Vec<_> = state.next_due(&CHANNELS, NOW).iter().map(|s| s.reason).collect();
    assert_eq!(reasons, [None, Some(CancelReason::OutOfStock)]);
}

#[test]
fn a_notice_that_cannot_be_delivered_for_too_long_fails_and_says_what_was_last_heard() {
    let mut state = State::default();
    state.learn(&Fact::Placed(placed(true, false)), &policy(), NOW);
    let send = state.claim(&CHANNELS, &policy(), NOW).remove(0);
    let later = Verdict::Later { reason: "it answered 451".into(), after: Duration::from_secs(60) };
    assert_eq!(state.report(&report(&send, later.clone()), &policy(), NOW + 1_000), None);
    let announced = state.report(&report(&send, later), &policy(), NOW + 3_600_000);
    let reason = "not delivered within 3600 s: it answered 451".to_owned();
    assert_eq!(announced, Some(Announcement::Failed { reason }));
}
