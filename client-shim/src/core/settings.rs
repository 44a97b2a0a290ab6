//! The session's settings (B11): what SET and RESET have made of them, so that a replica where the session is opened again
//! after a lost link gets them, too.

use super::Core;
use steeldb_types::limits;

/// SET and RESET statements that hold, in their order.
#[derive(Default)]
pub(super) struct Settings {
    statements: Vec<String>,
    /// Nobody can say what holds: the session cannot be opened again where it was lost.
    unknown: bool,
}

/// What a statement sets.
enum Setting {
    /// One setting of the session, by its name in lower case.
    One(String),
    /// All go back to what they were at its start.
    All,
    /// None, or of the transaction alone.
    None,
}

impl Setting {
    fn of(sql: &str) -> Setting {
        let lower = sql.trim_start().to_ascii_lowercase();
        let mut words = lower
            .split(|c: char| c.is_whitespace() || matches!(c, '=' | ';'))
            .filter(|word| !word.is_empty());
        match (words.next(), words.next(), words.next()) {
            (Some("discard"), ..) | (Some("reset"), Some("all"), None) => Setting::All,
            (Some("set"), Some("local" | "constraints" | "transaction"), _) => Setting::None,
            (Some("set"), Some("session"), Some(name)) | (Some("set" | "reset"), Some(name), _) => {
                // SET TIME ZONE sets timezone; names may be quoted.
                let name = if name == "time" { "timezone" } else { name };
                Setting::One(name.trim_matches('"').to_string())
            }
            _ => Setting::None,
        }
    }
}

impl Settings {
    /// The statements of a transaction that is committed, and that changed settings.
    pub(super) fn committed(&mut self, statements: Vec<String>) {
        for sql in statements {
            match Setting::of(&sql) {
                Setting::One(name) => {
                    let same = |other: &String| matches!(Setting::of(other), Setting::One(of) if of == name);
                    self.statements.retain(|other| !same(other));
                    self.statements.push(sql);
                }
                Setting::All => *self = Settings::default(),
                Setting::None => {}
            }
        }
        let bytes: usize = self.statements.iter().map(String::len).sum();
        self.unknown |=
            self.statements.len() > limits::RESTORED_SETTINGS_MAX || bytes > limits::RESTORED_BYTES_MAX;
    }

    /// A savepoint took back nobody knows which of them.
    pub(super) fn lost_track(&mut self) {
        self.unknown = true;
    }

    /// What brings a new backend to them; none when that is not known.
    pub(super) fn statements(&self) -> Option<&[String]> {
        (!self.unknown).then_some(self.statements.as_slice())
    }
}

impl Core {
    /// A transaction is committed: what it set holds.
    pub(super) fn settings_committed(&mut self) {
        let Some(transaction) = self.transaction.as_mut() else { return };
        let (settings, lost) = (std::mem::take(&mut transaction.settings), transaction.settings_lost);
        if lost && !settings.is_empty() {
            self.settings.lost_track();
        }
        self.settings.committed(settings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_each_setting_holds_and_a_reset_of_all_ends_them() {
        let mut settings = Settings::default();
        let mut set = |sql: &[&str]| {
            settings.committed(sql.iter().map(ToString::to_string).collect());
            settings.statements().map(<[String]>::to_vec)
        };
        assert_eq!(
            set(&["SET DateStyle = 'German'", "set local work_mem to 64", "SET CONSTRAINTS ALL DEFERRED"]),
            Some(vec!["SET DateStyle = 'German'".to_string()])
        );
        let both = vec!["SET TIME ZONE 'Asia/Tokyo'".to_string(), "SET SESSION datestyle TO iso".to_string()];
        assert_eq!(set(&["SET TIME ZONE 'Asia/Tokyo'", "SET SESSION datestyle TO iso"]), Some(both));
        assert_eq!(set(&["RESET timezone"]).unwrap(), ["SET SESSION datestyle TO iso", "RESET timezone"]);
        assert_eq!(set(&["DISCARD ALL"]), Some(vec![]));
    }

    #[test]
    fn too_many_are_not_taken_along() {
        let mut settings = Settings::default();
        settings.committed((0..100).map(|i| format!("SET my.setting{i} = 1")).collect());
        assert_eq!(settings.statements(), None);
        settings.committed(vec!["RESET ALL".into()]);
        assert_eq!(settings.statements(), Some(&[][..]), "known again");
    }
}
