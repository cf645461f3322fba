//! Customers and other systems, and their own log of every answer. They behave well: what was not answered is asked again
//! with the same key, until it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::evidence::{CancelAnswer, Poison, Wish};
use super::stories::{Story, Way};
use crate::failure::Failure;

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(4);
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// Some customers close the page at once and press the button again.
const IMPATIENCE_MS: std::ops::Range<u64> = 1..40;
const IMPATIENT_EVERY: u32 = 20;
/// Pauses between attempts grow to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Customers come in crowds: what is killed then has more in hand.
const BURST: u32 = 10;
/// When a repetition comes that nothing made necessary.
const LATER: Duration = Duration::from_secs(2);
/// How often another system looks whether its order was taken in.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// All of them.
pub struct Customers {
    http: reqwest::Client,
    /// Of each instance of the order API; they are asked in turn.
    apis: Vec<String>,
    turn: AtomicUsize,
    /// For orders of other systems, where there are any.
    broker: Option<async_nats::Client>,
    /// Makes the keys of this run.
    run: String,
    deadline_ms: i64,
    /// Whether the broker may forget what it has acknowledged; then another system looks after its order.
    broker_forgets: bool,
    /// Cancelled when there is no more time.
    give_up: CancellationToken,
    pub counts: Counts,
    log: Mutex<Vec<Value>>,
}

/// For the progress line and the report.
#[derive(Debug, Default)]
pub struct Counts {
    pub accepted: AtomicU64,
    pub finished: AtomicU64,
    pub requests: AtomicU64,
    /// Requests without an answer: nobody knows whether they took effect.
    pub unanswered: AtomicU64,
    /// Answers that said to come again.
    pub busy: AtomicU64,
    pub replayed: AtomicU64,
}

enum Answer {
    Accepted(String),
    Refused(String),
    /// No more time.
    Never,
}

impl Customers {
    pub async fn new(
        apis: Vec<String>,
        nats_url: Option<&str>,
        run: String,
        deadline: Duration,
        broker_forgets: bool,
        give_up: CancellationToken,
    ) -> Result<Self, Failure> {
        let http =
            millrace::http_client::http_client(PATIENCE, CONNECT_PATIENCE).map_err(|e| Failure::new(e.to_string()))?;
        let options = async_nats::ConnectOptions::new().connection_timeout(PATIENCE).max_reconnects(None);
        let broker = match nats_url {
            Some(url) => {
                let connected = options.connect(url).await;
                Some(connected.map_err(|e| Failure::new(format!("a plain NATS client: {e}")))?)
            }
            None => None,
        };
        let deadline_ms = i64::try_from(deadline.as_millis()).unwrap_or(i64::MAX);
        let (turn, counts, log) = (AtomicUsize::new(0), Counts::default(), Mutex::default());
        Ok(Self { http, apis, turn, broker, run, deadline_ms, broker_forgets, give_up, counts, log })
    }

    /// The address of the API whose turn it is.
    fn api(&self) -> &str {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.apis.len().max(1);
        self.apis.get(turn).map_or("", String::as_str)
    }

    /// Every story, begun at a steady rate, a few at a time. Returns what each was told, once each has been told.
    pub async fn order(self: &Arc<Self>, stories: Vec<Story>, every: Duration) -> Vec<Wish> {
        let begun = Instant::now();
        let mut living = JoinSet::new();
        for (n, story) in (0_u32..).zip(stories) {
            tokio::select! {
                () = sleep_until(begun + every * (n - n % BURST)) => {}
                () = self.give_up.cancelled() => break,
            }
            let customers = self.clone();
            living.spawn(async move {
                let wish = customers.live(&story).await;
                customers.counts.finished.fetch_add(1, Ordering::Relaxed);
                wish
            });
        }
        let mut wishes = living.join_all().await;
        wishes.sort_by_key(|wish| wish.number);
        wishes
    }

    /// Messages that nobody can read, spread over `length`. Returns how often each was published.
    pub async fn poison(&self, poison: Vec<(String, String)>, length: Duration) -> BTreeMap<String, Poison> {
        let pause = length / u32::try_from(poison.len() + 1).unwrap_or(u32::MAX);
        let mut published = BTreeMap::new();
        for (mark, body) in &poison {
            sleep(pause).await;
            published.insert(mark.clone(), Poison { body: body.clone(), published: self.publish(body).await });
        }
        published
    }

    /// All answers, one JSON document each.
    pub fn log(&self) -> Vec<Value> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn live(&self, story: &Story) -> Wish {
        let mut wish = Wish {
            number: story.number,
            customer: story.customer(),
            foreign: matches!(story.way, Way::Foreign { .. }),
            total: story.total,
            items: story.items.clone(),
            card_is_bad: story.card_is_bad(),
            wants_scarce: story.wants_scarce(),
            email: story.email,
            deadline_ms: self.deadline_ms,
            ..Wish::default()
        };
        match story.way {
            Way::Foreign { id, goods, twice } => {
                let body = story.version_1(id, goods).to_string();
                for _ in 0..=u32::from(twice) {
                    self.publish(&body).await;
                }
                wish.accepted.push(id.to_string());
                self.counts.accepted.fetch_add(1, Ordering::Relaxed);
                while self.broker_forgets && !self.give_up.is_cancelled() && !self.is_known(&id.to_string()).await {
                    sleep(LOOK_AGAIN).await;
                    if !self.is_known(&id.to_string()).await {
                        self.publish(&body).await;
                    }
                }
            }
            Way::Http { copies, later } => self.shop(story, copies, later, &mut wish).await,
        }
        wish
    }

    async fn shop(&self, story: &Story, copies: usize, later: bool, wish: &mut Wish) {
        let key = format!("verify-{}-{}", self.run, story.number);
        let body = story.order();
        let impatient = story.number % IMPATIENT_EVERY == 7;
        let asking = (0..copies).map(|_| self.place(story.number, &key, &body, impatient));
        let mut answers = futures::future::join_all(asking).await;
        if let Some(id) = answers.iter().find_map(Answer::accepted) {
            self.counts.accepted.fetch_add(1, Ordering::Relaxed);
            if let Some(after) = story.cancel_after {
                sleep(after).await;
                wish.cancel = Some(self.cancel(story.number, &id).await);
            }
        }
        if later {
            sleep(LATER).await;
            answers.push(self.place(story.number, &key, &body, false).await);
        }
        let mut accepted = BTreeSet::new();
        for answer in answers {
            match answer {
                Answer::Accepted(id) => drop(accepted.insert(id)),
                Answer::Refused(why) => wish.refused.push(why),
                Answer::Never => {}
            }
        }
        wish.accepted = accepted.into_iter().collect();
    }

    async fn place(&self, number: u32, key: &str, body: &Value, impatient: bool) -> Answer {
        for attempt in 0_u32.. {
            let mut request =
                self.http.post(format!("{}/orders", self.api())).header("Idempotency-Key", key).json(body);
            if impatient && attempt == 0 {
                request = request.timeout(Duration::from_millis(fastrand::u64(IMPATIENCE_MS)));
            }
            match self.send(number, "place", request).await {
                Some((202, body)) => match body.get("order_id").and_then(Value::as_str) {
                    Some(id) => return Answer::Accepted(id.to_owned()),
                    None => return Answer::Refused(format!("202 without an order id: {body}")),
                },
                Some((status @ (400..=407 | 409..=428 | 430..=499), body)) => {
                    return Answer::Refused(format!("{status} {body}"));
                }
                _ => {}
            }
            if self.pause(attempt).await {
                break;
            }
        }
        Answer::Never
    }

    async fn cancel(&self, number: u32, id: &str) -> CancelAnswer {
        for attempt in 0_u32.. {
            let request = self.http.post(format!("{}/orders/{id}/cancel", self.api()));
            match self.send(number, "cancel", request).await {
                Some((200 | 202, _)) => return CancelAnswer::Cancelled,
                Some((409, _)) => return CancelAnswer::TooLate,
                _ => {}
            }
            if self.pause(attempt).await {
                break;
            }
        }
        CancelAnswer::Unanswered
    }

    async fn is_known(&self, id: &str) -> bool {
        let answer = self.http.get(format!("{}/orders/{id}", self.api())).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// One exchange; `None` when nobody knows whether it took effect.
    async fn send(&self, number: u32, what: &str, request: reqwest::RequestBuilder) -> Option<(u16, Value)> {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        let answer = async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            let replayed = response.headers().contains_key("idempotent-replayed");
            let body: Value = match status {
                // What stands in a success must have come in whole.
                200..=299 => response.json().await?,
                _ => response.json().await.unwrap_or_default(),
            };
            Ok::<_, reqwest::Error>((status, replayed, body))
        };
        let answer = answer.await;
        let mut entry = serde_json::json!({ "story": number, "what": what });
        match &answer {
            Ok((status, replayed, body)) => {
                entry["status"] = (*status).into();
                entry["order_id"] = body.get("order_id").cloned().unwrap_or_default();
                self.counts.replayed.fetch_add(u64::from(*replayed), Ordering::Relaxed);
                self.counts.busy.fetch_add(u64::from(*status >= 429), Ordering::Relaxed);
            }
            Err(error) => {
                entry["unknown"] = error.to_string().into();
                self.counts.unanswered.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        answer.ok().map(|(status, _, body)| (status, body))
    }

    /// Publishes version 1 of an order with a plain client until the broker has it. Returns how often it was sent.
    async fn publish(&self, body: &str) -> u64 {
        let Some(broker) = &self.broker else { return 0 };
        let context = jetstream::new(broker.clone());
        for attempt in 0_u32.. {
            let sent = async { context.publish("orders.created", body.to_owned().into()).await?.await };
            if matches!(timeout(PATIENCE, sent).await, Ok(Ok(_))) {
                return u64::from(attempt) + 1;
            }
            if self.pause(attempt).await {
                return u64::from(attempt) + 1;
            }
        }
        0
    }

    /// Waits before the next attempt. Returns whether there is no more time.
    async fn pause(&self, attempt: u32) -> bool {
        let longest = (Duration::from_millis(50) * 2_u32.saturating_pow(attempt.min(10))).min(LONGEST_PAUSE);
        tokio::select! {
            () = sleep(longest.mul_f64(0.5 + fastrand::f64() / 2.0)) => false,
            () = self.give_up.cancelled() => true,
        }
    }
}

impl Answer {
    fn accepted(&self) -> Option<String> {
        match self {
            Self::Accepted(id) => Some(id.clone()),
            _ => None,
        }
    }
}
