//! From failure to dead letter to replay.

mod kept;
mod unanswered;
mod world;

use std::time::Duration;

use millrace::dead_letter::Reason;
use millrace::dead_letters::audit::What;
use millrace::dead_letters::{Correction, Error, Options, Outcome, State, Wanted, group, redeliver};
use millrace::topology::{self, Change};
use testkit::eventually;
use tokio_util::sync::CancellationToken;

use crate::broker;
use crate::things::{LIMIT, in_time};
use world::{ATTEMPTS, JOBS, Mood, ONLOOKER, WORKER, World, bare_topology};

fn again() -> Options {
    Options { again: true, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_reaches_the_failed_consumer_alone_and_takes_effect_once_however_often_it_is_made() {
    let world = World::start().await;
    world.handling.set("a", Mood::Permanent);
    world.publish("a").await;
    world.publish("b").await;
    let letter = world.waiting(1).await.remove(0);
    assert_eq!((letter.about.reason, letter.about.attempts), (Reason::Permanent, 1));
    assert_eq!(letter.about.errors, ["the tool broke", "invalid digit found in string"]);
    eventually(LIMIT, || async { world.handling.seen_by(ONLOOKER) == 2 }, "the onlooker to see both").await;

    world.handling.repair();
    let report = world.replay(&[letter.id], &Options::default()).await;
    assert!(report.all_handled(), "{report:?}");
    assert_eq!(world.done("a").await, 1);
    assert_eq!(world.letters(Wanted::Waiting).await, []);
    assert_eq!(world.letters(Wanted::Replayed).await[0].state, State::Handled);

    let refused = world.replay(&[letter.id], &Options::default()).await;
    assert!(matches!(&refused.letters[0].outcome, Outcome::Refused { why } if why.contains("handled")), "{refused:?}");
    let report = world.replay(&[letter.id], &again()).await;
    assert!(report.all_handled(), "{report:?}");
    assert_eq!((world.done("a").await, world.done("b").await), (1, 1));
    assert_eq!(world.handling.seen_by(ONLOOKER), 2, "it saw the replay");

    let letter = in_time(world.operator.get(letter.id)).await.unwrap();
    let told: Vec<_> = letter.history.iter().map(|e| (e.who.as_str(), e.what.action())).collect();
    let one = [("operator@desk", "replayed"), ("consumer worker-jobs", "handled")];
    assert_eq!(told, [one, one].concat());
    assert_eq!(in_time(world.operator.audit()).await.unwrap(), letter.history);
    assert_eq!(letter.body, r#"{"name":"a"}"#);
    world.stop().await;
}

/// Also an event whose publisher did not name it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_delivered_again_reaches_one_consumer_alone_and_takes_effect_once() {
    let world = World::start().await;
    world.publish("a").await;
    world.publish_raw(&[], br#"{"name":"b"}"#.to_vec()).await;
    let seen = async |worker| (world.handling.seen_by(WORKER), world.handling.seen_by(ONLOOKER)) == (worker, 2);
    eventually(LIMIT, || seen(2), "both consumers to see both").await;
    for seq in [1, 2, 1, 2] {
        in_time(redeliver(&world.connection, JOBS, seq, WORKER)).await.unwrap();
    }
    eventually(LIMIT, || seen(6), "the worker to see both twice again, and nobody else").await;
    assert_eq!((world.done("a").await, world.done("b").await), (1, 1));
    let gone = in_time(redeliver(&world.connection, JOBS, 4_711, WORKER)).await;
    assert!(matches!(gone, Err(Error::Gone { seq: 4_711, .. })), "{gone:?}");
    assert_eq!(in_time(world.operator.audit()).await.unwrap(), [], "it is no replay of a dead letter");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_fails_again_leaves_one_letter_in_place_of_the_old_one() {
    let world = World::start().await;
    world.handling.set("a", Mood::Transient);
    world.publish("a").await;
    let first = world.waiting(1).await.remove(0);
    assert_eq!((first.about.reason, first.about.attempts), (Reason::AttemptsExhausted, ATTEMPTS));
    let failed = first.about.first_failed_at.unwrap();
    assert!(failed >= first.about.published_at, "{first:?}");
    assert!(first.about.last_failed_at - failed >= Duration::from_millis(190), "{first:?}");

    let report = world.replay(&[first.id], &Options::default()).await;
    let second = world.waiting(1).await.remove(0);
    assert_eq!(report.letters[0].outcome, Outcome::FailedAgain { dead_letter: second.id });
    assert_ne!(second.id, first.id);
    assert_eq!(second.about.replay_of.as_ref().map(|of| of.letter), Some(first.id));
    assert_eq!(second.about.subject, "jobs.created");
    let replaced = in_time(world.operator.get(first.id)).await.unwrap();
    assert_eq!(replaced.state, State::FailedAgain { dead_letter: second.id });
    let refused = world.replay(&[first.id], &Options::default()).await;
    assert!(matches!(&refused.letters[0].outcome, Outcome::Refused { why } if why.contains(&second.id.to_string())));

    world.handling.repair();
    // The last of the chain, and then the first although it is settled.
    assert!(world.replay(&[second.id], &Options::default()).await.all_handled());
    assert!(world.replay(&[first.id], &again()).await.all_handled());
    assert_eq!(world.done("a").await, 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poison_event_among_a_thousand_good_ones_is_one_dead_letter_and_is_finished_after_repair() {
    let world = World::start().await;
    for n in 0..500 {
        world.publish(&format!("job-{n}")).await;
    }
    world.publish_raw(&[], br#"{"nam": "poison"}"#.to_vec()).await;
    for n in 500..1_000 {
        world.publish(&format!("job-{n}")).await;
    }
    let all_done = || async {
        let done = crate::things::number(
            &world.database,
            "select count(*) from counters where name like 'job-%' and value = 1",
        )
        .await;
        if done == 1_000 { Ok(()) } else { Err(format!("{done} done")) }
    };
    eventually(LIMIT, all_done, "a thousand jobs to be done").await;
    // Both consumers met the poison; each has a letter of its own.
    let letters = world.waiting(2).await;
    let letter = letters.iter().find(|letter| letter.about.consumer == WORKER).unwrap();
    assert_eq!(letter.about.reason, Reason::Undecodable);
    assert!(letter.about.errors[0].contains("name"), "{letter:?}");
    assert_eq!(group(&letters).len(), 2);

    let body = Some(br#"{"name": "poison"}"#.as_slice().into());
    let correction = Correction { body, headers: Vec::new() };
    let both: Vec<u64> = letters.iter().map(|letter| letter.id).collect();
    let options = Options { correction, ..Options::default() };
    let refused = in_time(world.operator.replay(&both, &options, |_| {})).await;
    assert!(matches!(refused, Err(Error::OneAtATime(2))), "{refused:?}");
    assert!(world.replay(&[letter.id], &options).await.all_handled());
    let known = in_time(world.operator.get(letter.id)).await.unwrap();
    assert!(matches!(known.history[0].what, What::Replayed { corrected: true, .. }), "{known:?}");
    assert_eq!(world.done("poison").await, 1);
    assert_eq!(world.handling.seen_by(ONLOOKER), 1_000, "the corrected message went to the worker alone");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_that_came_before_the_failure_is_not_repeated_by_a_replay() {
    let world = World::start().await;
    let named = |id: &str| vec![("ce-id".to_owned(), id.to_owned()), ("ce-source".to_owned(), "/shop".to_owned())];
    // Of ours, and of foreign publishers that say nothing, something, and enough.
    for (job, headers) in [
        ("silent", Vec::new()),
        ("numbered", vec![("Nats-Msg-Id".to_owned(), "m-1".to_owned())]),
        ("named", named("e-1")),
    ] {
        world.handling.set(job, Mood::FailAfterwards);
        world.publish_raw(&headers, format!(r#"{{"name":"{job}"}}"#).into_bytes()).await;
    }
    world.handling.set("own", Mood::FailAfterwards);
    world.publish("own").await;
    let letters = world.waiting(4).await;
    let ids: Vec<u64> = letters.iter().map(|letter| letter.id).collect();
    for options in [Options::default(), again()] {
        // The first time they fail again, and so do those letters' replays; none takes effect.
        let report = world.replay(&ids, &options).await;
        assert_eq!(report.count(|outcome| matches!(outcome, Outcome::FailedAgain { .. })), 4, "{report:?}");
    }
    world.handling.repair();
    let rest: Vec<u64> = world.waiting(8).await.iter().map(|letter| letter.id).collect();
    assert!(world.replay(&rest, &Options::default()).await.all_handled());
    for job in ["silent", "numbered", "named", "own"] {
        assert_eq!(world.done(job).await, 1, "{job}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_fails_again_stops_the_rest() {
    let world = World::start().await;
    let jobs: Vec<String> = (0..6).map(|n| format!("job-{n}")).collect();
    for job in &jobs {
        world.handling.set(job, Mood::Permanent);
        world.publish(job).await;
    }
    let ids: Vec<u64> = world.waiting(6).await.iter().map(|letter| letter.id).collect();
    let canary = Options { canary: Some(2), ..Options::default() };
    let report = world.replay(&ids, &canary).await;
    assert!(report.stopped_by_canary);
    assert_eq!(report.count(|outcome| matches!(outcome, Outcome::FailedAgain { .. })), 2, "{report:?}");
    assert_eq!(report.count(|outcome| *outcome == Outcome::NotTried), 4, "{report:?}");
    assert_eq!(world.handling.seen_by(WORKER), 8);

    world.handling.repair();
    let ids: Vec<u64> = world.waiting(6).await.iter().map(|letter| letter.id).collect();
    let mut shown = Vec::new();
    let report = in_time(world.operator.replay(&ids, &canary, |progress| shown.push(progress))).await.unwrap();
    assert!(report.all_handled() && !report.stopped_by_canary, "{report:?}");
    assert_eq!(shown.last().map(|last| (last.sent, last.handled)), Some((6, 6)), "{shown:?}");
    for job in &jobs {
        assert_eq!(world.done(job).await, 1);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_inbox_may_have_forgotten_is_replayed_only_when_somebody_insists() {
    let world = World::start().await;
    world.handling.set("a", Mood::Permanent);
    world.publish("a").await;
    let id = world.waiting(1).await[0].id;
    world.handling.repair();
    let options = Options { remembered: Some(Duration::from_nanos(1)), ..Options::default() };
    let report = world.replay(&[id], &options).await;
    assert!(matches!(&report.letters[0].outcome, Outcome::Refused { why } if why.contains("twice")), "{report:?}");
    assert!(world.replay(&[id], &Options { again: true, ..options }).await.all_handled());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_discarded_has_a_reason_and_does_not_wait_any_more() {
    let world = World::start().await;
    world.handling.set("a", Mood::Permanent);
    world.publish("a").await;
    let id = world.waiting(1).await[0].id;
    let ended = in_time(world.operator.discard(&[id, 4_711], "a test order")).await.unwrap();
    assert_eq!(ended[0].outcome, Outcome::Discarded);
    assert!(matches!(&ended[1].outcome, Outcome::Refused { why } if why.contains("4711")), "{ended:?}");
    assert_eq!(world.letters(Wanted::Waiting).await, []);
    let letter = world.letters(Wanted::Discarded).await.remove(0);
    assert_eq!(letter.state, State::Discarded { reason: "a test order".into() });
    let refused = world.replay(&[id], &Options::default()).await;
    assert!(matches!(refused.letters[0].outcome, Outcome::Refused { .. }), "{refused:?}");
    let twice = in_time(world.operator.discard(&[id], "again")).await.unwrap();
    assert!(matches!(twice[0].outcome, Outcome::Refused { .. }), "{twice:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_operators_at_the_same_letter_one_is_refused() {
    let world = World::start().await;
    world.handling.set("a", Mood::Permanent);
    world.publish("a").await;
    let id = world.waiting(1).await[0].id;
    world.handling.repair();
    let options = Options::default();
    let ids = [id];
    let (one, other) = tokio::join!(world.replay(&ids, &options), world.replay(&ids, &options));
    let handled = [&one, &other].iter().filter(|report| report.all_handled()).count();
    assert_eq!(handled, 1, "{one:?} {other:?}");
    assert_eq!((world.done("a").await, world.handling.seen_by(WORKER)), (1, 2));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_does_not_come_in_time_is_told_as_such_and_still_written_down() {
    let world = World::start().await;
    world.handling.set("a", Mood::Permanent);
    world.publish("a").await;
    let id = world.waiting(1).await[0].id;
    world.handling.repair();
    world.close_gate().await;
    let impatient = Options { wait: Duration::from_millis(300), ..Options::default() };
    let report = world.replay(&[id], &impatient).await;
    assert_eq!(report.letters[0].outcome, Outcome::StillBeingHandled);
    assert_eq!(in_time(world.operator.get(id)).await.unwrap().state, State::BeingReplayed);
    world.open_gate();
    let handled = || async { world.operator.get(id).await.unwrap().state == State::Handled };
    eventually(LIMIT, handled, "the audit to say that it was handled").await;
    world.stop().await;
}

/// The operator's command wrote down that it replays, and was killed before it did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_was_cut_off_before_it_left_waits_again_and_can_be_made_again() {
    let world = World::start().await;
    world.handling.set("a", Mood::Permanent);
    world.publish("a").await;
    let letter = world.waiting(1).await.remove(0);
    world.handling.repair();
    world.replayed_long_ago(&letter).await;
    let waiting = world.waiting(1).await;
    assert_eq!((waiting[0].id, &waiting[0].state), (letter.id, &State::ReplayUnanswered));
    assert!(world.replay(&[letter.id], &Options::default()).await.all_handled());
    assert_eq!((world.done("a").await, world.letters(Wanted::Waiting).await), (1, vec![]));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_too_large_for_a_letter_becomes_one_that_says_where_the_whole_is() {
    let world = World::start().await;
    // As JSON, in the letter, this header is twice as long: too long for the broker.
    let headers = [("X-Trace".to_owned(), "\"".repeat(40 * 1024)), ("ce-id".to_owned(), "big".to_owned())];
    world.publish_raw(&headers, br#"{"nonsense":1}"#.to_vec()).await;
    // One of the worker, one of the onlooker.
    let letter = world.waiting(2).await.remove(0);
    let whole = in_time(world.operator.get(letter.id)).await.unwrap();
    assert_eq!(whole.body, r#"{"nonsense":1}"#);
    assert!(whole.about.headers.iter().any(|(name, _)| name == "ce-id"), "{:?}", whole.about.headers);
    let said = whole.about.errors.last().unwrap();
    assert!(said.contains("message 1 of JOBS"), "{said}");

    // Nor is there room for the body, with what has to be said about it.
    world.publish_raw(&[], vec![b'x'; 1024 * 1024 - 300]).await;
    let second = world.waiting(4).await.remove(3);
    assert!(second.about.errors.last().unwrap().contains("message 2 of JOBS"), "{:?}", second.about.errors);
    world.publish("b").await;
    eventually(LIMIT, || async { world.done("b").await == 1 }, "the next message to be handled").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_from_before_there_were_replays_gets_them_and_passes_over_those_of_others() {
    let nats = testkit::nats().await;
    let connection = broker::connect(&nats).await;
    let never = CancellationToken::new();
    in_time(topology::ensure(&connection, &bare_topology(), true, &never)).await.unwrap();
    let world = World::on(nats).await;
    // Narrowing a filter is left to people, so the onlooker still receives whatever the stream has.
    let left = in_time(topology::plan(&world.connection, &bare_topology().with_dead_letters())).await.unwrap();
    let left: Vec<_> = left.entries.iter().filter(|entry| entry.change != Change::Unchanged).collect();
    assert!(matches!(left.as_slice(), [entry] if entry.name == "JOBS/onlooker-jobs"), "{left:?}");

    world.handling.set("a", Mood::Permanent);
    world.publish("a").await;
    let id = world.waiting(1).await[0].id;
    world.handling.repair();
    assert!(world.replay(&[id], &Options::default()).await.all_handled());
    let settled = || async {
        let info = world.consumer(ONLOOKER).await;
        (info.num_pending, info.num_ack_pending) == (0, 0) && info.delivered.stream_sequence == 2
    };
    eventually(LIMIT, settled, "the onlooker to have had both messages").await;
    assert_eq!(world.handling.seen_by(ONLOOKER), 1);
    assert_eq!(world.letters(Wanted::Waiting).await, []);
    world.stop().await;
}
