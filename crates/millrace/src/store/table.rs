use std::collections::HashMap;
use std::hash::Hash;

/// Rows of one database table that a batch works on, and which of them it changed.
///
/// A key that was asked for and not found is simply absent; rows are never deleted, only changed.
#[derive(Debug)]
pub struct Table<K, V> {
    rows: HashMap<K, Slot<V>>,
}

#[derive(Debug)]
struct Slot<V> {
    value: V,
    stored: bool,
    changed: bool,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { rows: HashMap::new() }
    }
}

impl<K: Eq + Hash, V: PartialEq> Table<K, V> {
    /// A row as the database has it.
    pub fn loaded(&mut self, key: K, value: V) {
        self.rows.insert(key, Slot { value, stored: true, changed: false });
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key).map(|slot| &slot.value)
    }

    /// Sets a row. Setting what is already there changes nothing and costs no write.
    pub fn put(&mut self, key: K, value: V) {
        match self.rows.get_mut(&key) {
            Some(slot) if slot.value == value => {}
            Some(slot) => {
                slot.value = value;
                slot.changed = true;
            }
            None => {
                self.rows.insert(key, Slot { value, stored: false, changed: true });
            }
        }
    }

    /// Rows the database does not have yet.
    pub fn inserted(&self) -> impl Iterator<Item = (&K, &V)> {
        self.rows.iter().filter(|(_, s)| s.changed && !s.stored).map(|(k, s)| (k, &s.value))
    }

    /// Rows the database has otherwise.
    pub fn updated(&self) -> impl Iterator<Item = (&K, &V)> {
        self.rows.iter().filter(|(_, s)| s.changed && s.stored).map(|(k, s)| (k, &s.value))
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.rows.values().map(|slot| &slot.value)
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn only_what_really_changed_is_written() {
        let mut table = Table::default();
        table.loaded("a", 1);
        table.loaded("b", 2);
        table.put("a", 1);
        table.put("b", 3);
        table.put("c", 4);
        table.put("c", 5);
        assert_eq!(table.inserted().collect::<Vec<_>>(), [(&"c", &5)]);
        assert_eq!(table.updated().collect::<Vec<_>>(), [(&"b", &3)]);
        assert_eq!(table.get(&"d"), None);
    }
}
