//! What the store promises, on both backends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::poll;
use millrace::store::{Committed, Database, Migration, Pool, StoreError, WriterSettings};
use testkit::eventually;

use crate::things::{
    Home, Intent, LIMIT, MIGRATIONS, Writing, caused_by, execute, hold, in_time, no_relay, number, unmarked,
};

macro_rules! on_both_backends {
    ($($promise:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                super::$promise(super::Home::sqlite().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                super::$promise(super::Home::postgres().await).await;
            })+
        }
    };
}

on_both_backends!(
    a_batch_commits_together_and_each_caller_gets_its_own_outcome,
    an_intent_that_fails_fails_alone_and_leaves_nothing,
    an_event_takes_effect_once_however_often_it_comes,
    in_a_large_batch_only_the_events_that_were_handled_before_are_left_out,
    a_caller_that_gave_up_in_time_is_not_committed,
    old_rows_go_however_busy_the_writer_is_and_young_or_unpublished_ones_stay,
    a_closed_writer_commits_what_waits_and_ends_though_handles_remain,
    a_database_that_refuses_everything_is_waited_for,
    tables_that_could_not_be_written_down_as_made_are_not_made,
    an_older_release_starts_on_the_tables_of_a_newer_one,
    under_load_intents_that_come_apart_share_a_commit_and_a_lone_one_does_not_wait,
);

async fn a_batch_commits_together_and_each_caller_gets_its_own_outcome(home: Home) {
    let counting = home.writer().await;
    let holding = hold(&counting.writer).await;
    let mut all = Box::pin(join_all((0..100).map(|_| counting.writer.submit(unmarked(Intent::count("a"))))));
    assert!(poll!(&mut all).is_pending());
    let loads = counting.loads.load(Ordering::SeqCst);
    drop(holding);
    let mut outcomes: Vec<_> = in_time(all).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(counting.loads.load(Ordering::SeqCst) - loads, 1, "they were not one batch");
    outcomes.sort_unstable_by_key(|outcome| match outcome {
        Committed::Now(value) => *value,
        Committed::Before => 0,
    });
    assert_eq!(outcomes, (1..=100).map(Committed::Now).collect::<Vec<_>>());
    assert_eq!(counting.number("select value from counters").await, 100);
    assert_eq!(counting.number("select count(distinct message_id) from outbox").await, 100);
}

async fn an_intent_that_fails_fails_alone_and_leaves_nothing(home: Home) {
    let counting = home.writer().await;
    let bad = [
        Intent::PanicInDecide,
        Intent::PanicInLoad,
        Intent::BreakConstraint,
        Intent::MisreadRow,
        Intent::PublishUnwritable,
    ];
    let holding = hold(&counting.writer).await;
    let good = join_all((0..10).map(|n| counting.writer.submit(caused_by(&format!("good-{n}"), "a"))));
    let bad = join_all(bad.into_iter().enumerate().map(|(n, intent)| {
        let mut submission = caused_by(&format!("bad-{n}"), "b");
        submission.intent = intent;
        counting.writer.submit(submission)
    }));
    let mut all = Box::pin(futures::future::join(good, bad));
    assert!(poll!(&mut all).is_pending());
    drop(holding);
    let (good, bad) = in_time(all).await;
    assert!(good.iter().all(|answer| matches!(answer, Ok(Committed::Now(_)))), "{good:?}");
    assert!(bad.iter().all(|answer| matches!(answer, Err(StoreError::Failed(_)))), "{bad:?}");
    let reasons: Vec<String> = bad.into_iter().map(|answer| answer.unwrap_err().to_string()).collect();
    assert!(reasons[0].contains("on purpose") && reasons[1].contains("on purpose"), "{reasons:?}");
    assert_eq!(counting.number("select value from counters where name = 'a'").await, 10);
    assert_eq!(counting.number("select count(*) from counters where name <> 'a'").await, 0);
    assert_eq!(counting.number("select count(*) from inbox").await, 10);
    assert_eq!(counting.number("select count(*) from outbox").await, 10);
}

async fn an_event_takes_effect_once_however_often_it_comes(home: Home) {
    let counting = home.writer().await;
    let submit = |event: &str| counting.writer.submit(caused_by(event, "a"));
    assert_eq!(in_time(submit("1")).await.unwrap(), Committed::Now(1));
    assert_eq!(in_time(submit("1")).await.unwrap(), Committed::Before);

    let holding = hold(&counting.writer).await;
    let mut twice_in_one_batch = Box::pin(join_all([submit("2"), submit("1"), submit("2"), submit("3")]));
    assert!(poll!(&mut twice_in_one_batch).is_pending());
    let loads = counting.loads.load(Ordering::SeqCst);
    drop(holding);
    let answers: Vec<_> = in_time(twice_in_one_batch).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, [Committed::Now(2), Committed::Before, Committed::Before, Committed::Now(3)]);
    assert_eq!(counting.loads.load(Ordering::SeqCst) - loads, 1, "the repetition spoiled the batch");
    assert_eq!(counting.number("select value from counters").await, 3);
    assert_eq!(counting.number("select count(*) from outbox").await, 3);
}

async fn in_a_large_batch_only_the_events_that_were_handled_before_are_left_out(home: Home) {
    let counting = home.writer().await;
    let submit = |event: usize| counting.writer.submit(caused_by(&event.to_string(), "a"));
    // In several of the sets of rows that are written at once, among the rest, and in none.
    let before = [2, 3, 11, 20, 29];
    for event in before {
        assert!(matches!(in_time(submit(event)).await.unwrap(), Committed::Now(_)));
    }
    let holding = hold(&counting.writer).await;
    let mut batch = Box::pin(join_all((0..30).map(submit)));
    assert!(poll!(&mut batch).is_pending());
    drop(holding);
    for (event, answer) in in_time(batch).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap() == Committed::Before, before.contains(&event), "{event}");
    }
    assert_eq!(counting.number("select value from counters").await, 30);
    assert_eq!(counting.number("select count(*) from inbox").await, 30);
    // Each has a row of its own, found under its number.
    let rows = counting.database.unpublished(0, i64::MAX, 100).await.unwrap();
    let numbers: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let bodies: Vec<String> = rows.iter().map(|row| String::from_utf8(row.message.body.to_vec()).unwrap()).collect();
    assert_eq!(numbers, (1..=30).collect::<Vec<i64>>());
    assert_eq!(bodies, (1..=30).map(|value| format!(r#"{{"counter":"a","value":{value}}}"#)).collect::<Vec<_>>());
}

async fn a_caller_that_gave_up_in_time_is_not_committed(home: Home) {
    let counting = home.writer().await;
    let holding = hold(&counting.writer).await;
    let patience = Duration::from_millis(20);
    let gave_up = counting.writer.submit_within(patience, unmarked(Intent::count("a"))).await;
    assert!(matches!(gave_up, Err(StoreError::Unavailable(_))), "{gave_up:?}");
    drop(holding);
    let next = in_time(counting.writer.submit(unmarked(Intent::count("a")))).await;
    assert_eq!(next.unwrap(), Committed::Now(1));
}

/// Otherwise every message would run out of attempts within seconds.
async fn a_database_that_refuses_everything_is_waited_for(home: Home) {
    let counting = home.writer().await;
    in_time(counting.writer.submit(unmarked(Intent::count("a")))).await.unwrap();
    execute(&home, &counting.database, "alter table counters rename to away").await;
    let mut waits = Box::pin(counting.writer.submit(unmarked(Intent::count("a"))));
    let early = tokio::time::timeout(Duration::from_millis(500), &mut waits).await;
    assert!(early.is_err(), "{early:?}");
    execute(&home, &counting.database, "alter table away rename to counters").await;
    assert_eq!(in_time(waits).await.unwrap(), Committed::Now(2));
}

/// As for a process that is killed between the two: the next start must not find tables that nobody knows of.
async fn tables_that_could_not_be_written_down_as_made_are_not_made(home: Home) {
    let history = "millrace_service_history";
    let before = home.open_at(&[]).await.unwrap();
    let (broken, mended) = match before.pool() {
        Pool::Sqlite(_) => (
            format!("create trigger no before insert on {history} begin select raise(abort, 'not now'); end"),
            "drop trigger no".to_owned(),
        ),
        Pool::Postgres(_) => (
            format!("alter table {history} add constraint no check (false)"),
            format!("alter table {history} drop constraint no"),
        ),
    };
    execute(&home, &before, &broken).await;
    let refused = home.open_at(MIGRATIONS).await.map(|_| ());
    assert!(matches!(refused, Err(StoreError::Failed(_))), "{refused:?}");
    execute(&home, &before, &mended).await;
    let database = home.open_at(MIGRATIONS).await.unwrap();
    assert_eq!(number(&database, "select count(*) from counters").await, 0);
}

/// During a change of releases both run on one database, and either may be started again.
async fn an_older_release_starts_on_the_tables_of_a_newer_one(home: Home) {
    let sql = "alter table counters add column note text";
    let newer = [MIGRATIONS, &[Migration { name: "V2__note", sqlite: sql, postgres: sql }]].concat();
    home.open_at(newer.leak()).await.unwrap();
    home.open_at(MIGRATIONS).await.unwrap();
}

async fn old_rows_go_however_busy_the_writer_is_and_young_or_unpublished_ones_stay(home: Home) {
    let database = home.open().await;
    let now = time::OffsetDateTime::now_utc().unix_timestamp() * 1_000;
    let rows = |kind: &str, many: usize, created: i64, published: &str| {
        let values: Vec<String> =
            (0..many).map(|n| format!("('{kind}-{n}', 's', 'l', '[]', '', {created}, {published})")).collect();
        insert_into_outbox(&database, &values.join(","))
    };
    // More of each than one step looks at, and the ones to be kept in front.
    let old = now - 3_600_000;
    let mut sql = rows("waiting", 2_500, old, "null");
    sql += &rows("old", 4_500, old + 1, &old.to_string());
    sql += &rows("late", 3, old + 2, &now.to_string());
    sql += &rows("young", 3, now, &now.to_string());
    let marks = |kind: &str, many: usize, at: i64| {
        let values: Vec<String> = (0..many).map(|n| format!("('{kind}', '{n}', {at})")).collect();
        format!("insert into inbox (consumer, event_id, handled_at) values {};", values.join(","))
    };
    sql += &(marks("old", 4_500, old) + &marks("young", 3, now));
    execute(&home, &database, &sql).await;

    let settings = WriterSettings {
        prune_every: Duration::from_millis(200),
        keep_published: Duration::from_secs(600),
        keep_handled: Duration::from_secs(600),
        max_batch: 4,
        ..WriterSettings::default()
    };
    let counting = Writing::start(&database, settings, no_relay(&database).await);
    let busy: Vec<_> = (0..16)
        .map(|_| {
            let writer = counting.writer.clone();
            tokio::spawn(async move { while writer.submit(unmarked(Intent::count("busy"))).await.is_ok() {} })
        })
        .collect();
    let (old_rows, old_marks) = (
        "select count(*) from outbox where message_id like 'old-%'",
        "select count(*) from inbox where consumer = 'old'",
    );
    let gone = || async { counting.number(old_rows).await == 0 && counting.number(old_marks).await == 0 };
    eventually(LIMIT, gone, "old rows to be removed").await;
    busy.iter().for_each(tokio::task::JoinHandle::abort);
    for (kind, many) in [("waiting", 2_500), ("late", 3), ("young", 3)] {
        let left = counting.number(&format!("select count(*) from outbox where message_id like '{kind}-%'")).await;
        assert_eq!(left, many, "{kind}");
    }
    assert_eq!(counting.number("select count(*) from inbox where consumer = 'young'").await, 3);
}

/// Rows of an outbox: message id, subject, lane, headers, body, when it was created, when it was published.
fn insert_into_outbox(database: &Database, values: &str) -> String {
    let columns = "message_id, subject, lane, headers, body, created_at";
    match database.pool() {
        Pool::Postgres(_) => format!("insert into outbox ({columns}, published_at) values {values};"),
        Pool::Sqlite(_) => format!(
            "create temp table made ({columns}, published_at);
             insert into made values {values};
             insert into outbox_message ({columns}) select {columns} from made order by rowid;
             insert into outbox_place (id, stream, stream_seq, published_at)
                 select id, 'T', id, published_at from outbox_message join made using (message_id)
                 where published_at is not null;
             insert into outbox_waiting select id from outbox_message join made using (message_id) where published_at is null;
             drop table made;"
        ),
    }
}

async fn under_load_intents_that_come_apart_share_a_commit_and_a_lone_one_does_not_wait(home: Home) {
    let interval = Duration::from_secs(2);
    let settings = WriterSettings { commit_interval: interval, ..WriterSettings::default() };
    let database = home.open().await;
    let counting = Writing::start(&database, settings, no_relay(&database).await);
    let began = Instant::now();
    for _ in 0..2 {
        in_time(counting.writer.submit(unmarked(Intent::count("lone")))).await.unwrap();
    }
    assert!(began.elapsed() < interval, "they waited for {:?}", began.elapsed());
    let holding = hold(&counting.writer).await;
    let mut many = Box::pin(join_all((0..20).map(|_| counting.writer.submit(unmarked(Intent::count("many"))))));
    assert!(poll!(&mut many).is_pending());
    drop(holding);
    assert!(in_time(many).await.iter().all(Result::is_ok));
    let loads = counting.loads.load(Ordering::SeqCst);
    let mut apart = Vec::new();
    for _ in 0..5 {
        let writer = counting.writer.clone();
        apart.push(tokio::spawn(async move { writer.submit(unmarked(Intent::count("apart"))).await }));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for one in apart {
        in_time(one).await.unwrap().unwrap();
    }
    assert_eq!(counting.loads.load(Ordering::SeqCst) - loads, 1, "they did not share a commit");
}

async fn a_closed_writer_commits_what_waits_and_ends_though_handles_remain(home: Home) {
    let counting = home.writer().await;
    let holding = hold(&counting.writer).await;
    let mut waiting = Box::pin(counting.writer.submit(unmarked(Intent::count("a"))));
    assert!(poll!(&mut waiting).is_pending());
    counting.writer.close();
    drop(holding);
    assert_eq!(in_time(waiting).await.unwrap(), Committed::Now(1));
    in_time(counting.task).await.unwrap();
    let too_late = in_time(counting.writer.submit(unmarked(Intent::count("a")))).await;
    assert!(matches!(too_late, Err(StoreError::Stopped)), "{too_late:?}");
}

/// Submits `many` events from several tasks, each until it is answered, and expects each to take effect.
async fn submit_all(counting: &Writing, many: usize) {
    let next = Arc::new(AtomicUsize::new(0));
    let tasks = (0..16).map(|_| {
        let (next, writer) = (next.clone(), counting.writer.clone());
        tokio::spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::SeqCst);
                if n >= many {
                    return;
                }
                writer.submit(caused_by(&n.to_string(), &format!("c{}", n % 7))).await.unwrap();
            }
        })
    });
    for task in in_time(join_all(tasks.collect::<Vec<_>>())).await {
        task.unwrap();
    }
}

async fn expect_each_once(counting: &Writing, many: i64) {
    for (what, sql) in [
        ("effects", "select sum(value)::bigint from counters"),
        ("marks", "select count(*) from inbox"),
        ("events", "select count(*) from outbox"),
    ] {
        assert_eq!(counting.number(sql).await, many, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_on_one_database_handle_each_event_once() {
    let home = Home::postgres().await;
    let (one, other) = (home.writer().await, home.writer().await);
    let both = futures::future::join(submit_all(&one, 300), submit_all(&other, 300));
    in_time(both).await;
    expect_each_once(&one, 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_killed_midway_lose_nothing_and_double_nothing() {
    let home = Home::postgres().await;
    let counting = home.writer().await;
    let name = home.url.rsplit('/').next().unwrap().to_owned();
    let killer = tokio::spawn(async move {
        let other = Home::postgres().await.open().await;
        let kill = format!("select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = '{name}'");
        let mut killed = 0;
        loop {
            killed += crate::things::number(&other, &kill).await;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(5..100))).await;
            if killed > 10 {
                return;
            }
        }
    });
    let mut done = 0;
    while !killer.is_finished() || done == 0 {
        let batch = (0..100).map(|n| counting.writer.submit(caused_by(&(done + n).to_string(), "a")));
        for answer in in_time(join_all(batch)).await {
            answer.unwrap();
        }
        done += 100;
    }
    expect_each_once(&counting, done).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_takes_effect_once() {
    let home = Home::postgres().await;
    home.open().await;
    let proxy = crate::proxy::Proxy::before(&home.url).await;
    let counting = Home::at(proxy.url.clone()).writer().await;
    in_time(counting.writer.submit(unmarked(Intent::count("a")))).await.unwrap();
    proxy.lose_next_commit();
    let answer = in_time(counting.writer.submit(caused_by("1", "a"))).await;
    assert_eq!(answer.unwrap(), Committed::Before, "the proxy did not lose the answer");
    proxy.lose_next_commit();
    let answer = in_time(counting.writer.submit(unmarked(Intent::count("a")))).await;
    assert_eq!(answer.unwrap(), Committed::Now(3), "the operation was not recognised");
    assert_eq!(counting.number("select value from counters").await, 3);
    assert_eq!(counting.number("select count(*) from outbox").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_is_given_up_and_reached_again() {
    let home = Home::postgres().await;
    let proxy = crate::proxy::Proxy::before(&home.url).await;
    let settings = millrace::store::DatabaseSettings { readers: 1, connect_timeout: Duration::from_millis(300) };
    let database = Home::at(proxy.url.clone()).open_with(&settings).await;
    let counting = Writing::start(&database, WriterSettings::default(), no_relay(&database).await);
    in_time(counting.writer.submit(unmarked(Intent::count("a")))).await.unwrap();
    // Open connections stay open and say nothing; new ones get through.
    proxy.silence();
    let answer = in_time(counting.writer.submit(unmarked(Intent::count("a")))).await;
    assert_eq!(answer.unwrap(), Committed::Now(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_stopped_and_started_under_load_loses_nothing_and_doubles_nothing() {
    let mut server = testkit::private_postgres().await;
    let home = Home::at(server.database_url("counters"));
    let counting = home.writer().await;
    let work = submit_all(&counting, 1_500);
    let disturb = async {
        for kill in [true, false] {
            let before = counting.loads.load(Ordering::SeqCst);
            let works = || async { counting.loads.load(Ordering::SeqCst) > before + 5 };
            eventually(LIMIT, works, "some batches").await;
            if kill {
                server.kill().await
            } else {
                server.stop().await
            }
            server.start().await.unwrap();
        }
    };
    futures::future::join(work, disturb).await;
    expect_each_once(&counting, 1_500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_callers_may_give_up_and_a_stopping_service_does_not_wait() {
    let mut server = testkit::private_postgres().await;
    let counting = Home::at(server.database_url("counters")).writer().await;
    in_time(counting.writer.submit(unmarked(Intent::count("a")))).await.unwrap();
    server.kill().await;
    let mut waits = Box::pin(counting.writer.submit(unmarked(Intent::count("patient"))));
    assert!(poll!(&mut waits).is_pending());
    let gave_up = counting.writer.submit_within(Duration::from_millis(300), unmarked(Intent::count("hasty"))).await;
    assert!(matches!(gave_up, Err(StoreError::Unavailable(_))), "{gave_up:?}");
    server.start().await.unwrap();
    assert_eq!(in_time(waits).await.unwrap(), Committed::Now(1));
    in_time(counting.writer.submit(unmarked(Intent::count("a")))).await.unwrap();
    assert_eq!(counting.number("select count(*) from counters where name = 'hasty'").await, 0);

    server.kill().await;
    let mut waits = Box::pin(counting.writer.submit(unmarked(Intent::count("late"))));
    assert!(poll!(&mut waits).is_pending());
    let told = Instant::now();
    counting.writer.stop_waiting();
    let refused = in_time(waits).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    counting.writer.close();
    in_time(counting.task).await.unwrap();
}

/// A standby that lagged has taken over. What is in memory belongs to the server that was: another event may have the
/// row's number there, and would count as published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_has_gone_back_in_time_ends_the_writer() {
    let home = Home::postgres().await;
    let counting = home.writer().await;
    in_time(counting.writer.submit(unmarked(Intent::count("a")))).await.unwrap();
    let others = "select pg_terminate_backend(pid) from pg_stat_activity
                  where datname = current_database() and pid <> pg_backend_pid()";
    execute(&home, &counting.database, others).await;
    assert_eq!(in_time(counting.writer.submit(unmarked(Intent::count("a")))).await.unwrap(), Committed::Now(2));

    execute(&home, &counting.database, &format!("delete from outbox where id > 1; {others}")).await;
    let refused = in_time(counting.writer.submit(unmarked(Intent::count("a")))).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    in_time(counting.task).await.unwrap();
    assert_eq!(number(&counting.database, "select value from counters").await, 2);
}
