//! The mail server: what the customer got.

use contracts::OrderId;
use simulators::mail::Messages;

use super::World;
use crate::commands::demo::scenario::Deviation;
use crate::commands::demo::trial::Trial;

impl World {
    /// Where the customer of a scenario gets mail.
    pub fn address(trial: &Trial) -> String {
        format!("{}@demo.example", trial.scenario.name)
    }

    /// Checks that the customer got exactly two mails about the order, the first to acknowledge it and the second to tell
    /// how it ended: "confirmed" or "cancelled".
    pub async fn check_mail(&self, trial: &Trial, id: OrderId, end: &str) -> Result<(), Deviation> {
        let url = format!("http://{}/messages?to={}", self.settings.simulators.mail_listen, Self::address(trial));
        let received: Messages = self.get_json(url).await?;
        let about = |text: &String| text.contains(&id.to_string());
        let mut subjects: Vec<_> =
            received.messages.into_iter().filter_map(|mail| mail.subject).filter(about).collect();
        subjects.reverse();
        let acknowledged = subjects.first().is_some_and(|subject| subject.contains("We have your order"));
        let told = subjects.get(1).is_some_and(|subject| subject.contains(end));
        if subjects.len() != 2 || !acknowledged || !told {
            let expected = format!("two mails about order {id}: acknowledged, then {end}");
            return Err(Deviation::new(expected, format!("{subjects:?}")));
        }
        trial.checked(format!("the customer got two mails: acknowledged, then {end}"));
        Ok(())
    }
}
