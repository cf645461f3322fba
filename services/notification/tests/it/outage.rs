//! The running service when providers or processes fail.

use contracts::OrderId;
use millrace::config::HumanDuration;
use notification::Settings;
use notification::domain::{Fact, Policy};
use testkit::eventually;

use crate::running::{Announced, Running, Sinks, mode, next};
use crate::support::{Bench, PATIENCE, Place, order, policy};

const ANN: Option<&str> = Some("ann@example.org");
const PHONE: &str = "+491511234567";

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_is_down_costs_no_attempts_and_holds_up_no_text_messages() {
    let (nats, place, sinks) = (testkit::nats().await, Place::sqlite(), Sinks::start().await);
    let running = Running::start(&nats, &place, sinks.settings()).await;
    sinks.mail_mode(mode("down")).await;
    let ids: Vec<OrderId> = (0..20).map(|_| OrderId::generate()).collect();
    for id in &ids {
        running.publish(&order(*id, ANN, Some(PHONE))).await;
    }
    let texts = || async { sinks.texts(PHONE).await.len() == ids.len() };
    eventually(PATIENCE, texts, "all text messages").await;
    running.all_answered_at_once().await;
    for id in &ids {
        assert!(sinks.mails(*id).await.is_empty());
    }
    sinks.mail_mode(mode("ok")).await;
    for id in &ids {
        sinks.mails_eventually(*id, 1).await;
    }
    assert_eq!(running.dead_letters().await, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_was_due_when_the_process_died_is_sent_after_the_restart() {
    let (nats, place, sinks) = (testkit::nats().await, Place::sqlite(), Sinks::start().await);
    let id = OrderId::generate();
    {
        // What a crash between the commit and the sending leaves: a claim that nobody will make use of.
        let policy = Policy { claim: std::time::Duration::from_millis(300), ..policy() };
        let bench = Bench::with(&place, policy).await;
        let due = bench.learn(id, Fact::Placed((&order(id, ANN, None)).into())).await;
        assert_eq!(due.sends.len(), 1);
    }
    let running = Running::start(&nats, &place, sinks.settings()).await;
    sinks.mails_eventually(id, 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_whose_answer_was_lost_is_repeated_under_the_same_id() {
    let (nats, place, sinks) = (testkit::nats().await, Place::sqlite(), Sinks::start().await);
    let running = Running::start(&nats, &place, sinks.settings()).await;
    sinks.mail_mode(serde_json::json!({ "mode": "lose_answers", "requests": 1 })).await;
    let id = OrderId::generate();
    running.publish(&order(id, ANN, None)).await;
    let mails = sinks.mails_eventually(id, 2).await;
    assert_eq!(mails[0]["message_id"], mails[1]["message_id"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_stays_away_too_long_makes_the_notice_fail_and_say_so() {
    let (nats, place, sinks) = (testkit::nats().await, Place::sqlite(), Sinks::start().await);
    let settings = Settings { give_up_after: HumanDuration::from_millis(1_000), ..sinks.settings() };
    let running = Running::start(&nats, &place, settings).await;
    let mut heard = running.listen().await;
    sinks.mail_mode(mode("down")).await;
    let id = OrderId::generate();
    running.publish(&order(id, ANN, None)).await;
    let announced = next(&mut heard).await;
    let Announced::Failed(failed) = announced else { panic!("{announced:?}") };
    assert!(failed.order_id == id && failed.reason.contains("not delivered within 1 s"), "{failed:?}");
    // It is not sent behind that either.
    sinks.mail_mode(mode("ok")).await;
    running.publish(&order(OrderId::generate(), ANN, None)).await;
    assert!(matches!(next(&mut heard).await, Announced::Sent(_)));
    assert!(sinks.mails(id).await.is_empty());
    running.stop().await;
}
