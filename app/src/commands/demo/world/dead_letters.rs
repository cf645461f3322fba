//! The stream of dead letters.

use contracts::OrderId;
use millrace::dead_letter::{DeadLetter, STREAM};

use super::World;
use crate::commands::demo::scenario::Deviation;

impl World {
    /// All dead letters whose body or description contains `text`.
    pub async fn dead_letters_about(&self, text: &str) -> Result<Vec<(DeadLetter, Vec<u8>)>, Deviation> {
        let failed =
            |error: &dyn std::fmt::Display| Deviation::new("the dead letters to be readable", error.to_string());
        let stream = self.connection.jetstream().get_stream(STREAM).await.map_err(|e| failed(&e))?;
        let state = &stream.cached_info().state;
        let mut found = Vec::new();
        for seq in state.first_sequence.max(1)..=state.last_sequence {
            let message = stream.get_raw_message(seq).await.map_err(|e| failed(&e))?;
            let letter = DeadLetter::from_headers(Some(&message.headers)).ok_or_else(|| {
                Deviation::new("a dead letter that describes itself", format!("{:?}", message.headers))
            })?;
            let about = format!("{letter:?} {}", String::from_utf8_lossy(&message.payload));
            if about.contains(text) {
                found.push((letter, message.payload.to_vec()));
            }
        }
        Ok(found)
    }

    /// Checks that no message about the order became a dead letter.
    pub async fn nothing_died_of(&self, id: OrderId) -> Result<(), Deviation> {
        let dead = self.dead_letters_about(&id.to_string()).await?;
        if dead.is_empty() {
            return Ok(());
        }
        Err(Deviation::new(format!("no dead letters of order {id}"), format!("{dead:?}")))
    }
}
