//! The same event in two releases of the same code.

use millrace::event::{Event, Older, OlderVersion, Unconvertible};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a release makes of a task and sees of it.
pub(crate) trait Task: Event {
    const RELEASE: i64;
    fn new(task: &str, minutes: i64) -> Self;
    fn minutes(&self) -> i64;
}

/// Before the change: hours, in version 1.
pub(crate) mod one {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
    pub(crate) struct TaskAdded {
        pub(crate) task: String,
        #[schemars(range(min = 0))]
        pub(crate) hours: f64,
    }

    impl Event for TaskAdded {
        const TYPE: &'static str = "tasks.added";
        const VERSION: u32 = 1;
        const SUBJECT: &'static str = "tasks.added";

        fn key(&self) -> String {
            self.task.clone()
        }
    }

    impl Task for TaskAdded {
        const RELEASE: i64 = 1;

        fn new(task: &str, minutes: i64) -> Self {
            Self { task: task.into(), hours: minutes as f64 / 60.0 }
        }

        fn minutes(&self) -> i64 {
            (self.hours * 60.0).round() as i64
        }
    }
}

/// After it: whole minutes and a note, in version 2; version 1 is still published, and read.
pub(crate) mod two {
    use super::*;

    pub(crate) use super::one::TaskAdded as TaskAddedV1;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
    pub(crate) struct TaskAdded {
        pub(crate) task: String,
        #[schemars(range(min = 0))]
        pub(crate) minutes: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub(crate) note: Option<String>,
    }

    impl Event for TaskAdded {
        const TYPE: &'static str = "tasks.added";
        const VERSION: u32 = 2;
        const SUBJECT: &'static str = "tasks.added.v2";
        const OLDER: &'static [OlderVersion<Self>] = &[OlderVersion::of::<TaskAddedV1>()];

        fn key(&self) -> String {
            self.task.clone()
        }
    }

    impl Older<TaskAdded> for TaskAddedV1 {
        const VERSION: u32 = 1;
        const SUBJECT: &'static str = "tasks.added";
        const LOSES: &'static [&'static str] = &["/note"];

        fn up(self) -> Result<TaskAdded, Unconvertible> {
            let minutes = self.hours * 60.0;
            if minutes.fract() != 0.0 {
                return Err(Unconvertible::new("/hours", format!("{} are no whole minutes", self.hours)));
            }
            Ok(TaskAdded { task: self.task, minutes: minutes as i64, note: None })
        }

        fn down(newest: &TaskAdded) -> Self {
            Self { task: newest.task.clone(), hours: newest.minutes as f64 / 60.0 }
        }
    }

    impl Task for TaskAdded {
        const RELEASE: i64 = 2;

        fn new(task: &str, minutes: i64) -> Self {
            Self { task: task.into(), minutes, note: Some("from release two".into()) }
        }

        fn minutes(&self) -> i64 {
            self.minutes
        }
    }
}

/// What the desk is asked, the same in both releases.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct AskMade {
    pub(crate) task: String,
    pub(crate) minutes: i64,
}

impl Event for AskMade {
    const TYPE: &'static str = "asks.made";
    const VERSION: u32 = 1;
    const SUBJECT: &'static str = "asks.made";

    fn key(&self) -> String {
        self.task.clone()
    }
}
