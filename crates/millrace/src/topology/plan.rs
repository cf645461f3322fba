//! Differences between what is declared and what exists, for people and for machines.

use std::fmt;

use serde::Serialize;

/// What kind of thing an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A stream.
    Stream,
    /// A key-value bucket.
    Bucket,
    /// A consumer; its name is written `STREAM/durable`.
    Consumer,
}

/// What stands between the declaration and one thing on the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// It is as declared.
    Unchanged,
    /// It does not exist.
    Create {
        /// What would be created, in short.
        summary: String,
    },
    /// A field differs and can be changed in place.
    Update {
        /// The field, by the server's name for it.
        field: &'static str,
        /// What the server has.
        from: String,
        /// What is declared.
        to: String,
        /// The change may delete messages or stop accepting a subject, so it is made only when asked for.
        narrows: bool,
    },
    /// A field differs, and the server cannot change it or a person has to decide.
    Conflict {
        /// The field, by the server's name for it.
        field: &'static str,
        /// What the server has.
        from: String,
        /// What is declared.
        to: String,
        /// Why it cannot be changed here, and what to do.
        why: String,
    },
    /// The server does not permit looking at it.
    Unseen {
        /// The subject on which a request was denied.
        denied: String,
    },
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What kind of thing this is about.
    pub kind: Kind,
    /// Which one.
    pub name: String,
    /// What differs.
    #[serde(flatten)]
    pub change: Change,
    /// Why a service must not run like this; `None` when the difference is harmless.
    pub breaks_promise: Option<String>,
}

/// All differences, in the order in which they would be removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// One entry for each difference, and one for each thing without any.
    pub entries: Vec<Entry>,
}

impl Plan {
    /// Whether everything is as declared.
    pub fn is_unchanged(&self) -> bool {
        self.entries.iter().all(|entry| entry.change == Change::Unchanged)
    }

    /// The entries that break the promise.
    pub fn broken(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.breaks_promise.is_some())
    }

    /// The entries that differ without breaking the promise.
    pub fn warnings(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.breaks_promise.is_none() && entry.change != Change::Unchanged)
    }

    /// The plan as lines of text, columns aligned, one line for each entry.
    pub fn lines(&self) -> Vec<String> {
        let width = self.entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
        self.entries.iter().map(|entry| entry.line(width)).collect()
    }
}

impl Entry {
    pub(super) fn new(kind: Kind, name: &str, change: Change, breaks_promise: Option<String>) -> Self {
        Self { kind, name: name.to_owned(), change, breaks_promise }
    }

    /// What a person can do about it; `None` when nothing is to be done.
    pub fn remedy(&self) -> Option<&str> {
        match &self.change {
            Change::Unchanged => None,
            Change::Create { .. } | Change::Update { narrows: false, .. } => {
                Some("apply the topology, or set topology.auto_apply to true")
            }
            Change::Update { narrows: true, .. } => Some("apply the topology with destructive changes allowed"),
            Change::Conflict { why, .. } => Some(why),
            Change::Unseen { .. } => Some("allow the request, or check the topology with a user who may look"),
        }
    }

    fn line(&self, width: usize) -> String {
        let (sign, what) = self.sign_and_change();
        let kind = self.kind.to_string();
        let promise = self.breaks_promise.as_ref().map_or(String::new(), |why| format!("  BREAKS THE PROMISE: {why}"));
        format!("{sign} {kind:<8} {name:<width$}  {what}{promise}", name = self.name)
    }

    /// The change alone, such as `max_age: 1d -> 7d`.
    pub(super) fn change_text(&self) -> String {
        self.sign_and_change().1
    }

    fn sign_and_change(&self) -> (char, String) {
        match &self.change {
            Change::Unchanged => ('=', "unchanged".to_owned()),
            Change::Create { summary } => ('+', format!("create: {summary}")),
            Change::Update { field, from, to, narrows } => {
                let note = if *narrows { "  (destructive: only when allowed)" } else { "" };
                (if *narrows { '-' } else { '~' }, format!("{field}: {from} -> {to}{note}"))
            }
            Change::Conflict { field, from, to, why } => ('!', format!("{field}: {from} -> {to}  ({why})")),
            Change::Unseen { denied } => ('?', format!("not permitted to look: {denied}")),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.kind, self.name)?;
        match &self.change {
            Change::Unchanged => write!(f, "as declared")?,
            Change::Create { .. } => write!(f, "does not exist")?,
            Change::Update { field, from, to, .. } | Change::Conflict { field, from, to, .. } => {
                write!(f, "{field} is {from}, declared is {to}")?;
            }
            Change::Unseen { denied } => write!(f, "could not be checked, {denied} is denied")?,
        }
        if let Some(why) = &self.breaks_promise {
            write!(f, ": {why}")?;
        }
        match self.remedy() {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "stream",
            Self::Bucket => "bucket",
            Self::Consumer => "consumer",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Plan {
        let update = |narrows| Change::Update { field: "max_age", from: "1d".into(), to: "7d".into(), narrows };
        let conflict = Change::Conflict {
            field: "retention",
            from: "workqueue".into(),
            to: "limits".into(),
            why: "create it anew".into(),
        };
        Plan {
            entries: vec![
                Entry::new(Kind::Stream, "ORDERS", update(false), Some("messages vanish early".into())),
                Entry::new(Kind::Stream, "P", update(true), None),
                Entry::new(Kind::Bucket, "catalog", Change::Unchanged, None),
                Entry::new(Kind::Consumer, "ORDERS/payment", conflict, Some("one reader only".into())),
            ],
        }
    }

    #[test]
    fn a_plan_reads_as_a_table() {
        assert_eq!(
            sample().to_string(),
            "~ stream   ORDERS          max_age: 1d -> 7d  BREAKS THE PROMISE: messages vanish early\n\
             - stream   P               max_age: 1d -> 7d  (destructive: only when allowed)\n\
             = bucket   catalog         unchanged\n\
             ! consumer ORDERS/payment  retention: workqueue -> limits  (create it anew)  \
             BREAKS THE PROMISE: one reader only"
        );
    }

    #[test]
    fn a_plan_is_json_a_script_can_read() {
        let json = serde_json::to_value(sample()).unwrap();
        assert_eq!(
            json["entries"][0],
            serde_json::json!({"kind": "stream", "name": "ORDERS", "change": "update", "field": "max_age", "from": "1d",
                "to": "7d", "narrows": false, "breaks_promise": "messages vanish early"})
        );
        assert_eq!(json["entries"][2]["change"], "unchanged");
    }
}
